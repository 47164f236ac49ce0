"""What `gpt workshop check 2` asks of model.py, property by property, beside gpt/model.py."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from gpt import model as ours
from gpt.config import ModelConfig
from gpt.model import cross_entropy, gelu
from workshop import mistaken
from workshop.checking import Part, Wrong

PART = Part("model.py")
CONFIG = ModelConfig(n_layer=2, n_head=2, n_embd=16, block_size=12, init_std=0.02)
VOCAB_SIZE = 65
CLOSE = 1e-4
EMBEDDING = "token_embedding.weight"
ALWAYS_DROPPED = (
    "dropout is on in eval mode: two readings of one text differ (nn.Dropout knows the mode; "
    "F.dropout has to be told: training=self.training)"
)


def alike(mine: Any, reference: nn.Module) -> None:
    """Gives both the same weights, by name: large enough for a mistake to show, always the same."""
    what = type(mine).__name__
    # A matrix that serves twice may have its other name first.
    every = mine.named_parameters(remove_duplicate=False)
    found = {name: tuple(p.shape) for name, p in every}
    generator = torch.Generator().manual_seed(7)
    for name, parameter in sorted(reference.named_parameters()):
        if name not in found:
            raise Wrong(f"your {what} has no parameter {name}: the names are in its docstring")
        if found[name] != tuple(parameter.shape):
            raise Wrong(f"{name} of your {what} is {found[name]}, not {tuple(parameter.shape)}")
        nn.init.normal_(parameter, 0.0, 0.4, generator=generator)
    mine.load_state_dict(reference.state_dict(), strict=False)
    mine.eval()
    reference.eval()


def given(mine: Any, x: Tensor) -> Tensor:
    """What `mine` makes of x. Raises Wrong where that is no tensor."""
    y = mine(x)
    what = type(mine).__name__
    if y is None:
        raise Wrong(f"forward of {what} gives None: is its `return` missing?")
    if not isinstance(y, Tensor):
        raise Wrong(f"forward of {what} gives a {type(y).__name__}, and should give one tensor")
    return y


def stream(seed: int = 0) -> Tensor:
    return torch.randn(1, 10, CONFIG.n_embd, generator=torch.Generator().manual_seed(seed))


def attentions(theirs: Any) -> tuple[Any, ours.CausalSelfAttention]:
    mine, reference = theirs.CausalSelfAttention(CONFIG), ours.CausalSelfAttention(CONFIG)
    alike(mine, reference)
    return mine, reference


def attention_fault(theirs: Any, otherwise: str) -> Wrong:
    """The mistake in attention by its name; `otherwise` where it is none that is known."""
    mine, reference = attentions(theirs)
    found = mine(stream())
    if not torch.equal(found.nan_to_num(), mine(stream()).nan_to_num()):
        return Wrong(ALWAYS_DROPPED)
    return Wrong(
        mistaken.which(found, mistaken.attentions(reference, stream()), CLOSE) or otherwise
    )


@PART.check("attention gives a stream of the shape it got")
@torch.no_grad()
def attention_shape(theirs: Any) -> None:
    mine, _ = attentions(theirs)
    try:
        found = tuple(given(mine, stream()).shape)
    except NotImplementedError:
        raise
    except RuntimeError as error:
        raise Wrong(
            "the heads do not fit together: q, k and v go from (b, t, d) to (b, t, h, k) by view, "
            "then to (b, h, t, k) by transpose; the way back is transpose, then reshape"
        ) from error
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
        raise attention_fault(
            theirs,
            f"position {first} is {float(before[0, first, 0])}: is there nothing that the mask "
            "lets it look at? A softmax over nothing but -inf is nan",
        )
    moved = [int(t) for t in ((before - after).abs().amax(-1)[0] > 1e-6).nonzero()[:, 0]]
    if token not in moved:
        raise attention_fault(
            theirs,
            f"position {token} does not see itself: it did not change when token {token} did. Is "
            "the mask off by one?",
        )
    if min(moved) == token - 1:
        raise attention_fault(
            theirs,
            f"the mask is off by one: position {token - 1} changed when token {token} did; it sees "
            "one token ahead, the very one it is to predict",
        )
    if min(moved) < token:
        raise attention_fault(
            theirs,
            f"your attention looks at the future: position {moved[0]} changed when token {token} "
            "did. Look at the mask",
        )
    if moved != list(range(token, 10)):
        raise attention_fault(
            theirs, f"when token {token} changed, positions {moved} did; all from it on should"
        )


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
    if not float((found - 1.0).abs().max()) <= CLOSE:
        raise attention_fault(
            theirs,
            "with values of 1 at every position attention should give 1 everywhere; yours gives "
            f"{float(found.min()):.3f} to {float(found.max()):.3f}: is the softmax over the last "
            "axis of (b, h, t, t), the positions looked at, and the mask before it?",
        )


@PART.check("scores are divided by the square root of the head size")
@torch.no_grad()
def scale(theirs: Any) -> None:
    mine, reference = attentions(theirs)
    x_btd = stream()
    found = mine(x_btd)
    if float((found - reference(x_btd)).abs().max()) < CLOSE:
        return
    raise attention_fault(
        theirs,
        "attention differs from the reference by "
        f"{float((found - reference(x_btd)).abs().max()):.3f}"
        ": look at the scale, at how q, k and v are cut into heads (the first d columns of qkv are "
        "the queries), and at how they are put together again",
    )


@PART.check("the MLP is up, GELU, down")
@torch.no_grad()
def mlp(theirs: Any) -> None:
    mine, reference = theirs.MLP(CONFIG), ours.MLP(CONFIG, gelu)
    alike(mine, reference)
    found, x_btd = given(mine, stream()), stream()
    apart = float((found - reference(x_btd)).abs().max())
    if apart <= 0.01:
        return
    if float((found - reference.down(reference.up(x_btd))).abs().max()) < CLOSE:
        raise Wrong("the GELU is missing: without a bend two linear layers are no more than one")
    if float((found - reference.down(reference.up(x_btd).relu())).abs().max()) < CLOSE:
        raise Wrong("the bend is a ReLU: GPT-2 has GELU, which is smooth at 0 (F.gelu)")
    if float((found - reference.down(reference.up(gelu(x_btd)))).abs().max()) < 0.01:
        raise Wrong("the GELU is in the wrong place: it stands between up and down")
    raise Wrong(f"the MLP differs from the reference by {apart:.3f}: down(gelu(up(x)))")


def blocks(theirs: Any) -> tuple[Any, ours.GPT2Block]:
    mine, reference = theirs.Block(CONFIG), ours.GPT2Block(CONFIG)
    alike(mine, reference)
    return mine, reference


@PART.check("a block adds to the stream and does not replace it")
@torch.no_grad()
def residual(theirs: Any) -> None:
    mine, _ = blocks(theirs)
    mine.attention.proj.weight.zero_()
    mine.mlp.down.weight.zero_()
    found = given(mine, stream())
    if float((found - stream()).abs().max()) < CLOSE:
        return
    for times in (2, 3, 4):
        if float((found - times * stream()).abs().max()) < CLOSE:
            raise Wrong(
                f"the stream is added too often: with branches that give 0 it comes out {times} "
                "times as large (x = x + branch(norm(x)), once)"
            )
    if float(found.abs().max()) < CLOSE:
        raise Wrong(
            "the residual is missing: with branches that give 0 the stream should go on past them "
            "unchanged, and yours ends (x = x + ...)"
        )
    raise Wrong(
        "the stream itself is normalised: with branches that give 0 it should go on past them "
        "unchanged; normalise what goes into a branch (x = x + branch(norm(x)))"
    )


@PART.check("a block is the reference's: pre-norm")
@torch.no_grad()
def block(theirs: Any) -> None:
    mine, reference = blocks(theirs)
    found = mine(stream())
    apart = float((found - reference(stream(), None)).abs().max())
    if apart > 0.02:
        raise Wrong(
            mistaken.which(found, mistaken.blocks(reference, stream()), 0.002)
            or f"the block differs from the reference by {apart:.3f}: x + attention(norm_1(x)), "
            "then x + mlp(norm_2(x))"
        )


def gpts(theirs: Any) -> tuple[Any, ours.GPT]:
    mine, reference = theirs.GPT(CONFIG, VOCAB_SIZE), ours.GPT(CONFIG, VOCAB_SIZE)
    alike(mine, reference)
    return mine, reference


def some_ids(t: int = 12) -> Tensor:
    return torch.randint(VOCAB_SIZE, (2, t), generator=torch.Generator().manual_seed(3))


@PART.check("the model gives logits for every position")
@torch.no_grad()
def logits_shape(theirs: Any) -> None:
    mine = theirs.GPT(CONFIG, VOCAB_SIZE)
    for t in (12, 7):
        try:
            found = tuple(given(mine, some_ids(t)).shape)
        except ValueError as error:
            raise Wrong(
                f"{t} positions are refused, and block_size is {CONFIG.block_size}: only more than "
                "that are too many"
            ) from error
        except NotImplementedError:
            raise
        except RuntimeError as error:
            raise Wrong(
                f"the shapes do not fit, with ids (2, {t}): there are as many positions as ids, "
                "(t, d), and the head is F.linear(x, weight), which turns its matrix (v, d) itself"
            ) from error
        if found != (2, t, VOCAB_SIZE):
            raise Wrong(f"ids (2, {t}) gave {found}; it should be (2, {t}, {VOCAB_SIZE}) logits")


@PART.check("head and token embedding are one matrix")
def tied(theirs: Any) -> None:
    mine = theirs.GPT(CONFIG, VOCAB_SIZE)
    reference = ours.GPT(CONFIG, VOCAB_SIZE)
    count = sum(parameter.numel() for parameter in mine.parameters())
    heads = [
        name
        for name, parameter in mine.named_parameters()
        if tuple(parameter.shape) == (VOCAB_SIZE, CONFIG.n_embd) and "embedding" not in name
    ]
    expected = sum(parameter.numel() for parameter in reference.parameters())
    matrix = VOCAB_SIZE * CONFIG.n_embd
    if count == expected + matrix or (count > expected and heads):
        raise Wrong(
            f"the weights are not tied: your model has {count:,} parameters, {count - expected:,} "
            "more than the reference. The head is the matrix of token_embedding, without a bias"
        )
    if count != expected:
        names = {name for name, _ in mine.named_parameters()}
        lacking = [name for name, _ in reference.named_parameters() if name not in names]
        if any(name.startswith("blocks.") for name in lacking):
            once = "one block is there several times over: make each anew, for _ in range(n_layer)"
            unseen = "the blocks are not seen by PyTorch: put them into an nn.ModuleList"
            raise Wrong(
                f"{once if any(name.startswith('blocks.') for name in names) else unseen}; your "
                f"model has {count:,} parameters, the reference {expected:,}"
            )
        what = f"your model lacks {lacking[0]}: it" if lacking else "your model"
        raise Wrong(f"{what} has {count:,} parameters, the reference {expected:,}")


@PART.check("it knows where a token stands")
@torch.no_grad()
def positions(theirs: Any) -> None:
    mine, _ = gpts(theirs)
    same = mine(torch.zeros(1, 6, dtype=torch.int64))
    if float((same[:, 0] - same[:, 5]).abs().max()) < CLOSE:
        raise Wrong(
            "the positions are missing: of six equal tokens the first and the last get the same "
            "logits; add position_embedding to token_embedding"
        )


@PART.check("it begins as good as guessing")
@torch.no_grad()
def first_loss(theirs: Any) -> None:
    torch.manual_seed(0)
    mine = theirs.GPT(CONFIG, VOCAB_SIZE).eval()
    ids_bt = some_ids()
    loss = float(cross_entropy(mine(ids_bt)[:, :-1], ids_bt[:, 1:]))
    guessing = math.log(VOCAB_SIZE)
    if not float(dict(mine.named_parameters(remove_duplicate=False))[EMBEDDING].std()):
        raise Wrong(
            "the init is wrong: all tokens begin with the same numbers, and weights that begin "
            "alike stay alike; draw them (nn.init.normal_)"
        )
    if abs(loss - guessing) > 0.3:
        raise Wrong(
            f"the init is wrong: your loss starts at {loss:.1f}, and ln {VOCAB_SIZE} is "
            f"{guessing:.2f} (normal with std config.init_std for matrices; PyTorch's own for "
            "embeddings is 1)"
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


@PART.check("dropout is off in eval mode")
@torch.no_grad()
def steady(theirs: Any) -> None:
    mine = theirs.GPT(CONFIG.model_copy(update={"dropout": 0.5}), VOCAB_SIZE).eval()
    if not torch.equal(mine(some_ids()), mine(some_ids())):
        raise Wrong(ALWAYS_DROPPED)


@PART.check("its logits are the reference's")
@torch.no_grad()
def logits(theirs: Any) -> None:
    mine, reference = gpts(theirs)
    # Shorter than a block, so that it shows from where positions are counted.
    ids_bt = some_ids(7)
    found, expected = mine(ids_bt), reference(ids_bt)
    apart = float((found - expected).abs().max() / expected.abs().max())
    if apart > 0.01:
        raise Wrong(
            mistaken.which(found, mistaken.models(reference, ids_bt), 0.01)
            or f"with the reference's weights your logits differ by {apart:.1%}: embeddings, "
            "blocks, norm, head"
        )


@PART.check("learning reaches every weight")
def gradients(theirs: Any) -> None:
    mine, reference = gpts(theirs)
    ids_bt = some_ids()
    for model in (mine, reference):
        loss = cross_entropy(model(ids_bt)[:, :-1], ids_bt[:, 1:])
        try:
            loss.backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            if "inplace" in str(error):
                raise Wrong(
                    "the stream is changed in place, and its gradients need what it was: write "
                    "x = x + branch(...), not x += branch(...)"
                ) from error
            raise Wrong(
                "nothing can be learned: the logits know nothing of the weights that they were "
                "computed by; is there a no_grad, a detach or an item in forward?"
            ) from error
    found = dict(mine.named_parameters(remove_duplicate=False))
    for name, parameter in reference.named_parameters():
        expected, grad = parameter.grad, found[name].grad
        assert expected is not None
        if grad is None or not torch.allclose(
            grad, expected, rtol=0.0, atol=0.02 * float(expected.abs().max())
        ):
            raise Wrong(
                f"learning does not reach all of {name}: its gradient is not the reference's, "
                "though the logits are; is there a detach, a .data or a copy of it in forward?"
            )
