"""What `gpt workshop check 2` asks of model.py, property by property, beside gpt/model.py."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from gpt import model as ours
from gpt.config import ModelConfig
from gpt.functional import cross_entropy, gelu
from workshop.checking import Part, Wrong

PART = Part("model.py")
CONFIG = ModelConfig(n_layer=2, n_head=2, n_embd=16, block_size=12, init_std=0.02)
VOCAB_SIZE = 65
CLOSE = 1e-4


def spread(module: nn.Module) -> nn.Module:
    """Weights large enough for a mistake to show, the same ones every time."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for _, parameter in sorted(module.named_parameters()):
            parameter.normal_(0.0, 0.4, generator=generator)
    return module.eval()


def alike(theirs: nn.Module, reference: nn.Module, what: str) -> None:
    """Gives `theirs` the weights of `reference`, by name."""
    state = reference.state_dict()
    found = {name: tuple(p.shape) for name, p in theirs.named_parameters()}
    for name, tensor in state.items():
        if name not in found:
            raise Wrong(f"your {what} has no parameter {name}: the names are in its docstring")
        if found[name] != tuple(tensor.shape):
            raise Wrong(f"{name} of your {what} is {found[name]}, not {tuple(tensor.shape)}")
    theirs.load_state_dict(state, strict=False)
    theirs.eval()


def stream(seed: int = 0) -> Tensor:
    return torch.randn(1, 10, CONFIG.n_embd, generator=torch.Generator().manual_seed(seed))


def attentions(theirs: Any) -> tuple[Any, ours.CausalSelfAttention]:
    reference = ours.CausalSelfAttention(CONFIG)
    spread(reference)
    mine = theirs.CausalSelfAttention(CONFIG)
    alike(mine, reference, "CausalSelfAttention")
    return mine, reference


@PART.check("attention gives a stream of the shape it got")
@torch.no_grad()
def attention_shape(theirs: Any) -> None:
    mine, _ = attentions(theirs)
    found = tuple(mine(stream()).shape)
    if found != (1, 10, 16):
        raise Wrong(f"a stream of shape (1, 10, 16) came out as {found}: bring the heads together")


@PART.check("no position looks at the future, and each looks at itself")
@torch.no_grad()
def future(theirs: Any) -> None:
    mine, _ = attentions(theirs)
    x_btd, changed_btd, token = stream(), stream(), 7
    changed_btd[:, token] += 1.0
    before, after = mine(x_btd), mine(changed_btd)
    if not bool(before.isfinite().all()):
        first = int((~before.isfinite()).nonzero()[0, 1])
        raise Wrong(
            f"position {first} is {float(before[0, first, 0])}: the mask leaves it nothing to look "
            "at, and a softmax over nothing but -inf is nan; it may look at itself. Is the mask "
            "off "
            "by one?"
        )
    moved = [int(t) for t in ((before - after).abs().amax(-1)[0] > 1e-6).nonzero()[:, 0]]
    if token not in moved:
        raise Wrong(
            f"position {token} did not change when token {token} did: each position sees itself. "
            "Is the mask off by one?"
        )
    if min(moved) == token - 1:
        raise Wrong(
            f"position {token - 1} changed when token {token} did: it sees one token ahead, the "
            "very "
            "one it is to predict. The mask is off by one"
        )
    if min(moved) < token:
        raise Wrong(
            f"your attention looks at the future: position {moved[0]} changed when token {token} "
            "did. It needs a mask: scores of later positions become -inf before the softmax"
        )
    if moved != list(range(token, 10)):
        raise Wrong(f"when token {token} changed, positions {moved} did; all from it on should")


@PART.check("the weights of a row sum to 1")
@torch.no_grad()
def rows(theirs: Any) -> None:
    mine, _ = attentions(theirs)
    # Values that are the same everywhere: whatever the weights, their mean is that value.
    d = CONFIG.n_embd
    mine.qkv.weight[2 * d :] = 0.0
    mine.proj.weight.copy_(torch.eye(d))
    if mine.qkv.bias is None:
        mine.qkv.bias = nn.Parameter(torch.zeros(3 * d))
    mine.qkv.bias[2 * d :] = 1.0
    found = mine(stream())
    if float((found - 1.0).abs().max()) > CLOSE:
        raise Wrong(
            "with values of 1 at every position attention should give 1 everywhere; yours gives "
            f"{float(found.min()):.3f} to {float(found.max()):.3f}: the softmax is on the wrong "
            "axis "
            "(over the positions looked at, the last of (b, h, t, t)), or the mask comes after it"
        )


@PART.check("scores are divided by the square root of the head size")
@torch.no_grad()
def scale(theirs: Any) -> None:
    mine, reference = attentions(theirs)
    x_btd = stream()
    found = mine(x_btd)
    if float((found - reference(x_btd)).abs().max()) < CLOSE:
        return
    k = CONFIG.n_embd // CONFIG.n_head
    for factor, said in (
        (math.sqrt(k), f"the scores are not divided by sqrt(k) = sqrt({k}): the scale is missing"),
        (math.sqrt(1 / k), f"the scores are divided by k = {k}; it should be sqrt(k)"),
        (
            math.sqrt(k / CONFIG.n_embd),
            "the scores are divided by sqrt(d), the width of the stream; it should be sqrt(k), the "
            "size of a head",
        ),
    ):
        scaled = ours.CausalSelfAttention(CONFIG).eval()
        scaled.load_state_dict(reference.state_dict())
        scaled.qkv.weight[: CONFIG.n_embd] *= factor
        if float((found - scaled(x_btd)).abs().max()) < CLOSE:
            raise Wrong(said)
    raise Wrong(
        "attention differs from the reference by "
        f"{float((found - reference(x_btd)).abs().max()):.3f}"
        ": look at how q, k and v are cut into heads (the first d columns of qkv are the queries) "
        "and put together again"
    )


@PART.check("the MLP is up, GELU, down")
@torch.no_grad()
def mlp(theirs: Any) -> None:
    reference = ours.MLP(CONFIG, gelu)
    spread(reference)
    mine = theirs.MLP(CONFIG)
    alike(mine, reference, "MLP")
    apart = float((mine(stream()) - reference(stream())).abs().max())
    if apart > 0.01:
        raise Wrong(f"the MLP differs from the reference by {apart:.3f}: down(gelu(up(x)))")


def blocks(theirs: Any) -> tuple[Any, ours.GPT2Block]:
    reference = ours.GPT2Block(CONFIG)
    spread(reference)
    mine = theirs.Block(CONFIG)
    alike(mine, reference, "Block")
    return mine, reference


@PART.check("a block adds to the stream and does not replace it")
@torch.no_grad()
def residual(theirs: Any) -> None:
    mine, _ = blocks(theirs)
    mine.attention.proj.weight.zero_()
    mine.mlp.down.weight.zero_()
    found = mine(stream())
    if float((found - stream()).abs().max()) < CLOSE:
        return
    if float(found.abs().max()) < CLOSE:
        raise Wrong(
            "with branches that give 0 the stream should go on past them unchanged, and yours "
            "ends: "
            "the residual is missing (x = x + ...)"
        )
    raise Wrong(
        "with branches that give 0 the stream should go on past them unchanged: normalise what "
        "goes "
        "into a branch, not the stream (x = x + branch(norm(x)))"
    )


@PART.check("a block is the reference's: pre-norm")
@torch.no_grad()
def block(theirs: Any) -> None:
    mine, reference = blocks(theirs)
    apart = float((mine(stream()) - reference(stream(), None)).abs().max())
    if apart > 0.02:
        raise Wrong(
            f"the block differs from the reference by {apart:.3f}: x + attention(norm_1(x)), then "
            "x + mlp(norm_2(x))"
        )


def gpts(theirs: Any) -> tuple[Any, ours.GPT]:
    reference = ours.GPT(CONFIG, VOCAB_SIZE)
    spread(reference)
    mine = theirs.GPT(CONFIG, VOCAB_SIZE)
    alike(mine, reference, "GPT")
    return mine, reference


def some_ids(t: int = 12) -> Tensor:
    return torch.randint(VOCAB_SIZE, (2, t), generator=torch.Generator().manual_seed(3))


@PART.check("the model gives logits for every position")
@torch.no_grad()
def logits_shape(theirs: Any) -> None:
    found = tuple(theirs.GPT(CONFIG, VOCAB_SIZE)(some_ids()).shape)
    if found != (2, 12, VOCAB_SIZE):
        raise Wrong(f"ids (2, 12) gave {found}; it should be (2, 12, {VOCAB_SIZE}) logits")


@PART.check("head and token embedding are one matrix")
def tied(theirs: Any) -> None:
    mine = theirs.GPT(CONFIG, VOCAB_SIZE)
    count = sum(parameter.numel() for parameter in mine.parameters())
    expected = sum(parameter.numel() for parameter in ours.GPT(CONFIG, VOCAB_SIZE).parameters())
    matrix = VOCAB_SIZE * CONFIG.n_embd
    if count == expected + matrix:
        raise Wrong(
            f"your model has {count:,} parameters, {matrix:,} more than the reference: the weights "
            "are not tied. The head is the matrix of token_embedding"
        )
    if count != expected:
        raise Wrong(f"your model has {count:,} parameters, the reference {expected:,}")


@PART.check("it knows where a token stands")
@torch.no_grad()
def positions(theirs: Any) -> None:
    mine, _ = gpts(theirs)
    same = mine(torch.zeros(1, 6, dtype=torch.int64))
    if float((same[:, 0] - same[:, 5]).abs().max()) < CLOSE:
        raise Wrong(
            "of six equal tokens the first and the last get the same logits: add "
            "position_embedding "
            "to token_embedding"
        )


@PART.check("it begins as good as guessing")
@torch.no_grad()
def first_loss(theirs: Any) -> None:
    torch.manual_seed(0)
    mine = theirs.GPT(CONFIG, VOCAB_SIZE).eval()
    ids_bt = some_ids()
    loss = float(cross_entropy(mine(ids_bt)[:, :-1], ids_bt[:, 1:]))
    guessing = math.log(VOCAB_SIZE)
    if abs(loss - guessing) > 0.3:
        raise Wrong(
            f"your loss starts at {loss:.1f}; ln {VOCAB_SIZE} is {guessing:.2f}: look at the init "
            "(normal with std config.init_std for matrices; PyTorch's own for embeddings is 1)"
        )


@PART.check("more than block_size positions are refused")
@torch.no_grad()
def too_long(theirs: Any) -> None:
    mine = theirs.GPT(CONFIG, VOCAB_SIZE)
    try:
        mine(some_ids(13))
    except ValueError:
        return
    except Exception as error:
        raise Wrong(f"13 positions of 12 end in {type(error).__name__}: raise ValueError") from None
    raise Wrong("13 positions went through a model of block_size 12: raise ValueError")


@PART.check("its logits are the reference's")
@torch.no_grad()
def logits(theirs: Any) -> None:
    mine, reference = gpts(theirs)
    expected = reference(some_ids())
    apart = float((mine(some_ids()) - expected).abs().max() / expected.abs().max())
    if apart > 0.01:
        raise Wrong(
            f"with the reference's weights your logits differ by {apart:.1%}: embeddings, blocks, "
            "norm, head"
        )
