"""The checks of `gpt workshop check 2`: model.py, property by property, against gpt/model.py."""

import math
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gpt import model as ours
from gpt.config import ModelConfig
from gpt.model import cross_entropy, gelu
from workshop import model_mistakes
from workshop.checking import Checklist, Wrong, hint_on

CHECKS = Checklist()
Module = TypeVar("Module", bound=nn.Module)
CONFIG = ModelConfig(n_layer=2, n_head=2, n_embd=16, block_size=12, init_std=0.02)
VOCAB_SIZE = 65
TOLERANCE = 1e-4
EMBEDDING = "token_embedding.weight"
ALWAYS_DROPPED = (
    "dropout is on in eval mode: two forwards of one text differ (nn.Dropout knows the mode; "
    "F.dropout has to be told: training=self.training)"
)


def same_weights(mine: Any, reference: Module) -> tuple[Any, Module]:
    """Both modules with the same fixed weights, by name, large enough for a mistake to show."""
    module = type(mine).__name__
    # A tied matrix may have its other name first.
    named = mine.named_parameters(remove_duplicate=False)
    shapes = {name: tuple(p.shape) for name, p in named}
    generator = torch.Generator().manual_seed(7)
    for name, parameter in sorted(reference.named_parameters()):
        if name not in shapes:
            raise Wrong(f"your {module} has no parameter {name}: the names are in its docstring")
        if shapes[name] != tuple(parameter.shape):
            raise Wrong(f"{name} of your {module} is {shapes[name]}, not {tuple(parameter.shape)}")
        nn.init.normal_(parameter, 0.0, 0.4, generator=generator)
    mine.load_state_dict(reference.state_dict(), strict=False)
    return mine.eval(), reference.eval()


def forward(mine: Any, x: Tensor) -> Tensor:
    """The output of `mine` for x. Raises Wrong if it is not a tensor."""
    y = mine(x)
    module = type(mine).__name__
    if y is None:
        raise Wrong(f"forward of {module} returns None: is its `return` missing?")
    if not isinstance(y, Tensor):
        raise Wrong(f"forward of {module} returns a {type(y).__name__}, and should one tensor")
    return y


def hidden_states() -> Tensor:
    """The input of every module; a clone of it goes to the learner's, which may change it."""
    return torch.randn(1, 10, CONFIG.n_embd, generator=torch.Generator().manual_seed(0))


def attentions(theirs: Any) -> tuple[Any, ours.CausalSelfAttention]:
    return same_weights(theirs.CausalSelfAttention(CONFIG), ours.CausalSelfAttention(CONFIG))


def attention_mistake(theirs: Any, unknown: str) -> Wrong:
    """The mistake in attention by its name; `unknown` if it is no known one."""
    mine, reference = attentions(theirs)
    x_btd = hidden_states()
    y_btd = mine(x_btd.clone())
    if not torch.equal(y_btd.nan_to_num(), mine(x_btd.clone()).nan_to_num()):
        return Wrong(ALWAYS_DROPPED)
    mistakes = model_mistakes.attentions(reference, x_btd)
    return Wrong(model_mistakes.first_match(y_btd, mistakes, TOLERANCE) or unknown)


@CHECKS.check("attention keeps the shape of its input")
@torch.no_grad()
def attention_shape(theirs: Any) -> None:
    mine, _ = attentions(theirs)
    with hint_on(
        "the heads do not fit together: q, k and v go from (b, t, d) to (b, t, h, k) by view, "
        "then to (b, h, t, k) by transpose; undo it by transpose, then reshape",
        RuntimeError,
    ):
        shape = tuple(forward(mine, hidden_states()).shape)
    if shape != (1, 10, 16):
        raise Wrong(f"an input of shape (1, 10, 16) came out as {shape}: join the heads")


@CHECKS.check("no position attends to the future, and each attends to itself")
@torch.no_grad()
def future(theirs: Any) -> None:
    mine, _ = attentions(theirs)
    x_btd, changed_btd, token = hidden_states(), hidden_states(), 7
    changed_btd[:, token] += 1.0
    before, after = mine(x_btd), mine(changed_btd)
    if not bool(before.isfinite().all()):
        first = int((~before.isfinite()).nonzero()[0, 1])
        raise attention_mistake(
            theirs,
            f"position {first} is {float(before[0, first, 0])}: does the mask leave nothing for "
            "it to attend to? A softmax over nothing but -inf is nan",
        )
    changed = [int(t) for t in ((before - after).abs().amax(-1)[0] > 1e-6).nonzero()[:, 0]]
    first = min(changed, default=token)
    unknown = f"when token {token} changed, positions {changed} did; all from it on should"
    if token not in changed:
        unknown = (
            f"position {token} does not attend to itself: it did not change when token {token} "
            "did. Is the mask off by one?"
        )
    elif first == token - 1:
        unknown = (
            f"the mask is off by one: position {first} changed when token {token} did; it sees "
            "one token ahead, the very one it is to predict"
        )
    elif first < token:
        unknown = (
            f"your attention sees the future: position {first} changed when token {token} did; "
            "check the mask"
        )
    if changed != list(range(token, 10)):
        raise attention_mistake(theirs, unknown)


@CHECKS.check("the attention weights of a position sum to 1")
@torch.no_grad()
def weight_sums(theirs: Any) -> None:
    mine, _ = attentions(theirs)
    # The same value at every position: whatever the weights, their average is that value.
    d = CONFIG.n_embd
    mine.qkv.weight[2 * d :] = 0.0
    mine.proj.weight.copy_(torch.eye(d))
    if mine.qkv.bias is None:
        mine.qkv.bias = nn.Parameter(torch.zeros(3 * d))
    mine.qkv.bias[2 * d :] = 1.0
    y_btd = mine(hidden_states())
    if not float((y_btd - 1.0).abs().max()) <= TOLERANCE:
        raise attention_mistake(
            theirs,
            "with values of 1 at every position attention should give 1 everywhere; yours gives "
            f"{float(y_btd.min()):.3f} to {float(y_btd.max()):.3f}: is the softmax over the last "
            "axis of (b, h, t, t), the attended positions, and the mask before it?",
        )


@CHECKS.check("scores are divided by the square root of the head size")
@torch.no_grad()
def scale(theirs: Any) -> None:
    mine, reference = attentions(theirs)
    x_btd = hidden_states()
    difference = float((mine(x_btd.clone()) - reference(x_btd)).abs().max())
    if difference >= TOLERANCE:
        raise attention_mistake(
            theirs,
            f"attention differs from the reference by {difference:.3f}: check the scale, how q, k "
            "and v are split into heads (the first d columns of qkv are the queries), and how the "
            "heads are joined",
        )


@CHECKS.check("the MLP is up, GELU, down")
@torch.no_grad()
def mlp(theirs: Any) -> None:
    mine, reference = same_weights(theirs.MLP(CONFIG), ours.MLP(CONFIG, gelu))
    x_btd = hidden_states()
    y_btd = forward(mine, x_btd.clone())

    def difference(expected_btd: Tensor) -> float:
        return float((y_btd - expected_btd).abs().max())

    if difference(reference(x_btd)) <= 0.01:
        return
    if difference(reference.down(reference.up(x_btd))) < TOLERANCE:
        raise Wrong("the GELU is missing: without an activation two linear layers are only one")
    if difference(reference.down(reference.up(x_btd).relu())) < TOLERANCE:
        raise Wrong("the activation is a ReLU: GPT-2 has GELU, which is smooth at 0 (F.gelu)")
    if difference(reference.down(reference.up(gelu(x_btd)))) < 0.01:
        raise Wrong("the GELU is in the wrong position: it belongs between up and down")
    raise Wrong(
        f"the MLP differs from the reference by {difference(reference(x_btd)):.3f}: "
        "down(gelu(up(x)))"
    )


def blocks(theirs: Any) -> tuple[Any, ours.GPT2Block]:
    return same_weights(theirs.Block(CONFIG), ours.GPT2Block(CONFIG))


@CHECKS.check("a block adds to the residual stream and does not replace it")
@torch.no_grad()
def residual(theirs: Any) -> None:
    mine, _ = blocks(theirs)
    mine.attention.proj.weight.zero_()
    mine.mlp.down.weight.zero_()
    x_btd = hidden_states()
    y_btd = forward(mine, x_btd.clone())
    if float((y_btd - x_btd).abs().max()) < TOLERANCE:
        return
    for times in (2, 3, 4):
        if float((y_btd - times * x_btd).abs().max()) < TOLERANCE:
            raise Wrong(
                f"the stream is added too often: with branches that return 0 it comes out {times} "
                "times as large (x = x + branch(norm(x)), once)"
            )
    if float(y_btd.abs().max()) < TOLERANCE:
        raise Wrong(
            "the residual is missing: with branches that return 0 the stream should pass them "
            "unchanged, and yours ends (x = x + ...)"
        )
    raise Wrong(
        "the stream itself is normalized: with branches that return 0 it should pass them "
        "unchanged; normalize what goes into a branch (x = x + branch(norm(x)))"
    )


@CHECKS.check("a block is the reference's: pre-norm")
@torch.no_grad()
def block(theirs: Any) -> None:
    mine, reference = blocks(theirs)
    x_btd = hidden_states()
    y_btd = mine(x_btd.clone())
    difference = float((y_btd - reference(x_btd, None)).abs().max())
    if difference > 0.02:
        mistakes = model_mistakes.blocks(reference, x_btd)
        raise Wrong(
            model_mistakes.first_match(y_btd, mistakes, 0.002)
            or f"the block differs from the reference by {difference:.3f}: "
            "x + attention(norm_1(x)), then x + mlp(norm_2(x))"
        )


def gpts(theirs: Any) -> tuple[Any, ours.GPT]:
    return same_weights(theirs.GPT(CONFIG, VOCAB_SIZE), ours.GPT(CONFIG, VOCAB_SIZE))


def some_ids(t: int = 12) -> Tensor:
    return torch.randint(VOCAB_SIZE, (2, t), generator=torch.Generator().manual_seed(3))


@CHECKS.check("the model returns logits for every position")
@torch.no_grad()
def logits_shape(theirs: Any) -> None:
    mine = theirs.GPT(CONFIG, VOCAB_SIZE)
    for t in (12, 7):
        refused = (
            f"{t} positions are refused, and block_size is {CONFIG.block_size}: only more than "
            "that are too many"
        )
        misfit = (
            f"the shapes do not fit, with ids (2, {t}): there are as many positions as ids, "
            "(t, d), and the head is F.linear(x, weight), which transposes its matrix (v, d) itself"
        )
        with hint_on(misfit, RuntimeError), hint_on(refused, ValueError):
            shape = tuple(forward(mine, some_ids(t)).shape)
        if shape != (2, t, VOCAB_SIZE):
            raise Wrong(f"ids (2, {t}) gave {shape}; it should be (2, {t}, {VOCAB_SIZE}) logits")


@CHECKS.check("head and token embedding are one matrix")
def tied(theirs: Any) -> None:
    mine, reference = theirs.GPT(CONFIG, VOCAB_SIZE), ours.GPT(CONFIG, VOCAB_SIZE)
    count = sum(parameter.numel() for parameter in mine.parameters())
    has_head = any(
        tuple(parameter.shape) == (VOCAB_SIZE, CONFIG.n_embd) and "embedding" not in name
        for name, parameter in mine.named_parameters()
    )
    expected = sum(parameter.numel() for parameter in reference.parameters())
    if count == expected + VOCAB_SIZE * CONFIG.n_embd or (count > expected and has_head):
        raise Wrong(
            f"the weights are not tied: your model has {count:,} parameters, {count - expected:,} "
            "more than the reference. The head is the matrix of token_embedding, without a bias"
        )
    if count != expected:
        names = {name for name, _ in mine.named_parameters()}
        missing = [name for name, _ in reference.named_parameters() if name not in names]
        hint = f"your model lacks {missing[0]}" if missing else "the number of parameters is wrong"
        if any(name.startswith("blocks.") for name in missing):
            hint = "the blocks are not registered in PyTorch: put them into an nn.ModuleList"
            if any(name.startswith("blocks.") for name in names):
                hint = "one block is used several times: make each anew, for _ in range(n_layer)"
        raise Wrong(f"{hint}; your model has {count:,} parameters, the reference {expected:,}")


@CHECKS.check("it knows the position of a token")
@torch.no_grad()
def positions(theirs: Any) -> None:
    mine, _ = gpts(theirs)
    same = mine(torch.zeros(1, 6, dtype=torch.int64))
    if float((same[:, 0] - same[:, 5]).abs().max()) < TOLERANCE:
        raise Wrong(
            "the positions are missing: of six equal tokens the first and the last get the same "
            "logits; add position_embedding to token_embedding"
        )


@CHECKS.check("it starts at the uniform baseline, ln v")
@torch.no_grad()
def first_loss(theirs: Any) -> None:
    torch.manual_seed(0)
    mine = theirs.GPT(CONFIG, VOCAB_SIZE).eval()
    ids_bt = some_ids()
    loss = float(cross_entropy(mine(ids_bt)[:, :-1], ids_bt[:, 1:]))
    uniform = math.log(VOCAB_SIZE)
    if not float(dict(mine.named_parameters(remove_duplicate=False))[EMBEDDING].std()):
        raise Wrong(
            "the init is wrong: all tokens start with the same vector, and weights that start "
            "equal stay equal; sample them (nn.init.normal_)"
        )
    if abs(loss - uniform) > 0.3:
        raise Wrong(
            f"the init is wrong: your loss starts at {loss:.1f}, and ln {VOCAB_SIZE} is "
            f"{uniform:.2f} (normal with std config.init_std for matrices; PyTorch's own for "
            "embeddings is 1)"
        )


@CHECKS.check("more than block_size positions are refused")
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


@CHECKS.check("dropout is off in eval mode")
@torch.no_grad()
def steady(theirs: Any) -> None:
    mine = theirs.GPT(CONFIG.model_copy(update={"dropout": 0.5}), VOCAB_SIZE).eval()
    if not torch.equal(mine(some_ids()), mine(some_ids())):
        raise Wrong(ALWAYS_DROPPED)


@CHECKS.check("its logits are the reference's")
@torch.no_grad()
def logits(theirs: Any) -> None:
    mine, reference = gpts(theirs)
    ids_bt = some_ids(7)  # shorter than a block, which shows from where positions are counted
    logits_btv, expected_btv = mine(ids_bt), reference(ids_bt)
    difference = float((logits_btv - expected_btv).abs().max() / expected_btv.abs().max())
    if difference > 0.01:
        mistakes = model_mistakes.models(reference, ids_bt)
        raise Wrong(
            model_mistakes.first_match(logits_btv, mistakes, 0.01)
            or f"with the reference's weights your logits differ by {difference:.1%}: embeddings, "
            "blocks, norm, head"
        )


@CHECKS.check("learning reaches every weight")
def gradients(theirs: Any) -> None:
    mine, reference = gpts(theirs)
    ids_bt = some_ids()
    for model in (mine, reference):
        loss = cross_entropy(model(ids_bt)[:, :-1], ids_bt[:, 1:])
        try:
            loss.backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise Wrong(
                "the stream is changed in place, and its gradients need what it was: write "
                "x = x + branch(...), not x += branch(...)"
                if "inplace" in str(error)
                else "nothing can be learned: the logits have no gradients to the weights; is "
                "there a no_grad, a detach or an item in forward?"
            ) from error
    parameters = dict(mine.named_parameters(remove_duplicate=False))
    for name, parameter in reference.named_parameters():
        expected, grad = parameter.grad, parameters[name].grad
        assert expected is not None
        if grad is None or not torch.allclose(
            grad, expected, rtol=0.0, atol=0.02 * float(expected.abs().max())
        ):
            raise Wrong(
                f"learning does not reach all of {name}: its gradient is not the reference's, "
                "though the logits are; is there a detach, a .data or a copy of it in forward?"
            )
