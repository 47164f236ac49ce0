"""What the model of part 2 gives with a usual mistake in it: a mistake is told by its effect.

Each of them is computed with the reference's weights. What a learner's code gives is held against
all of them, and the one that gives the same is named. Nothing here looks at the learner's code.

Shapes: b sequences, t positions, d = n_embd, h heads, k = d / h.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gpt import model as ours

Step = Callable[[Tensor], Tensor]
Named = tuple[str, Tensor]  # a mistake in words, and what it gives


def which(found: Tensor, mistakes: Iterator[Named], close: float) -> str:
    """The first mistake that gives `found`, within `close` of its largest number; "" if none does.

    Where both are nan they are alike.
    """
    for said, given in mistakes:
        if found.shape != given.shape:
            continue
        scale = float(given.nan_to_num().abs().max())
        if torch.allclose(found, given, rtol=0.0, atol=close * max(scale, 1.0), equal_nan=True):
            return said
    return ""


def attentions(reference: ours.CausalSelfAttention, x_btd: Tensor) -> Iterator[Named]:
    """CausalSelfAttention, with one mistake at a time."""
    b, t, d = x_btd.shape
    h = reference.n_head
    k = d // h
    later_tt = torch.ones(t, t, dtype=torch.bool).triu(1)
    eye_tt = torch.eye(t, dtype=torch.bool)

    def cut(x_btd: Tensor) -> Tensor:
        return x_btd.view(b, t, h, k).transpose(1, 2)

    def join(x_bhtk: Tensor) -> Tensor:
        return x_bhtk.transpose(1, 2).reshape(b, t, d)

    def masked(scores_bhtt: Tensor) -> Tensor:
        return scores_bhtt.masked_fill(later_tt, -math.inf)

    def weigh(scores_bhtt: Tensor) -> Tensor:
        return masked(scores_bhtt).softmax(-1)

    def attend(
        cut: Step = cut,
        join: Step = join,
        weigh: Step = weigh,
        scale: float = 1 / math.sqrt(k),
        order: tuple[int, int, int] = (0, 1, 2),
        proj: Step = reference.proj,
    ) -> Tensor:
        parts = reference.qkv(x_btd).chunk(3, dim=-1)
        q_bhtk, k_bhtk, v_bhtk = (cut(parts[i].contiguous()) for i in order)
        return proj(join(weigh(q_bhtk @ k_bhtk.transpose(2, 3) * scale) @ v_bhtk))

    yield "the scale is missing: the scores are not divided by sqrt(k)", attend(scale=1.0)
    yield (
        f"the scale is wrong: the scores are divided by k = {k}; it should be sqrt(k)",
        attend(scale=1 / k),
    )
    yield (
        "the scale is wrong: the scores are divided by sqrt(d), the width of the stream; it should "
        "be sqrt(k), the size of a head",
        attend(scale=1 / math.sqrt(d)),
    )
    yield (
        "the scale is upside down: the scores are multiplied by sqrt(k); divide them",
        attend(scale=math.sqrt(k)),
    )
    for said, by in (
        ("d, the width of the stream (or by 2 k: for Python k**1/2 is k / 2)", d),
        ("sqrt(h), of the number of heads", math.sqrt(h)),
        ("sqrt(t), of the number of positions", math.sqrt(t)),
    ):
        yield (
            f"the scale is wrong: the scores are divided by {said}; it should be sqrt(k), the size "
            "of a head",
            attend(scale=1 / by),
        )
    yield (
        "the scale comes after the softmax: the scores are divided by sqrt(k), before it, and the "
        "weights by nothing",
        attend(scale=1.0, weigh=lambda scores: weigh(scores) / math.sqrt(k)),
    )

    for axis in (-2, 1, 0):
        yield (
            "the softmax is on the wrong axis: weights should sum to 1 over the positions looked "
            "at, the last axis of (b, h, t, t)",
            attend(weigh=lambda scores, axis=axis: masked(scores).softmax(axis)),  # type: ignore[misc]
        )
    yield (
        "the mask is missing: every position looks at the future; scores of later positions become "
        "-inf before the softmax",
        attend(weigh=lambda scores: scores.softmax(-1)),
    )
    yield (
        "the mask is off by one: a position may look at itself, and yours may not; position 0 is "
        "left with nothing, and a softmax over nothing but -inf is nan",
        attend(weigh=lambda s: s.masked_fill(later_tt | eye_tt, -math.inf).softmax(-1)),
    )
    yield (
        "the mask is off by one: a position sees one token ahead, the very one it is to predict",
        attend(weigh=lambda s: s.masked_fill(later_tt.triu(2), -math.inf).softmax(-1)),
    )
    yield (
        "the mask is off by one: a position may look at itself, and yours may not; position 0 is "
        "left with nothing, so that all of its scores are the same, those of the future too",
        attend(weigh=lambda s: s.masked_fill(later_tt | eye_tt, -1e9).softmax(-1)),
    )
    yield (
        "the softmax is done twice: the second makes all weights about the same, those of the "
        "future too",
        attend(weigh=lambda scores: weigh(scores).softmax(-1)),
    )
    yield (
        "the softmax is missing: scores are any numbers, and weights are positive and sum to 1",
        attend(weigh=lambda scores: scores.masked_fill(later_tt, 0.0)),
    )
    yield (
        "the softmax is a log_softmax: weights are shares, not their logarithms",
        attend(weigh=lambda scores: masked(scores).log_softmax(-1)),
    )
    yield (
        "the mask comes after the softmax: the weights left do not sum to 1; scores of later "
        "positions become -inf before it",
        attend(weigh=lambda scores: scores.softmax(-1).masked_fill(later_tt, 0.0)),
    )
    yield (
        "the mask puts in 0, which is a score like any other: exp(0) is 1; it has to be -inf",
        attend(weigh=lambda scores: scores.masked_fill(later_tt, 0.0).softmax(-1)),
    )
    for diagonal in (0, -1):
        earlier_tt = torch.ones(t, t, dtype=torch.bool).tril(diagonal)
        yield (
            "the mask is upside down: it hides what came before, and leaves what comes after",
            attend(weigh=lambda s, e=earlier_tt: s.masked_fill(e, -math.inf).softmax(-1)),  # type: ignore[misc]
        )

    cuts: tuple[Step, ...] = (
        cut,
        lambda x_btd: x_btd.reshape(b, h, t, k),
        lambda x_btd: x_btd.view(b, t, k, h).permute(0, 3, 1, 2),
    )
    joins: tuple[Step, ...] = (
        join,
        lambda x_bhtk: x_bhtk.reshape(b, t, d),
        lambda x_bhtk: x_bhtk.permute(0, 2, 3, 1).reshape(b, t, d),
    )
    for cutting in cuts:
        for joining in joins:
            yield (
                "the heads are mixed up: a head is k numbers that stand side by side in d, and a "
                "view alone moves no axis; look at the order of b, t, h and k where the heads are "
                "cut and where they are joined again",
                attend(cut=cutting, join=joining),
            )
    for order in ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0), (0, 2, 2), (0, 0, 2)):
        yield (
            "queries, keys and values are mixed up: of the 3 d numbers of qkv the first d are the "
            "query, then come the key and the value; query times key is the score",
            attend(order=order),
        )
    yield (
        "there is one head: the d numbers are cut into h heads of k = d / h, and each looks by "
        "itself",
        attend(
            cut=lambda x_btd: x_btd[:, None],
            join=lambda x_bhtk: x_bhtk[:, 0],
            scale=1 / math.sqrt(d),
        ),
    )
    yield "proj is missing: what the heads found is not mixed", attend(proj=lambda x_btd: x_btd)


def blocks(of: ours.GPT2Block, x_btd: Tensor) -> Iterator[Named]:
    """Block, with one mistake at a time; all of them have their residuals."""
    attended = x_btd + of.attention(of.norm_1(x_btd))
    yield (
        "the norm before attention is missing: what goes into it is not normalised (norm_1)",
        (y := x_btd + of.attention(x_btd)) + of.mlp(of.norm_2(y)),
    )
    yield (
        "the norm before the MLP is missing: what goes into it is not normalised (norm_2)",
        attended + of.mlp(attended),
    )
    yield (
        "both norms are missing: what goes into a branch is not normalised",
        (y := x_btd + of.attention(x_btd)) + of.mlp(y),
    )
    yield (
        "norm_1 is used twice: the MLP has a norm of its own, norm_2",
        attended + of.mlp(of.norm_1(attended)),
    )
    yield (
        "the norms are swapped: norm_1 belongs to attention, norm_2 to the MLP",
        (y := x_btd + of.attention(of.norm_2(x_btd))) + of.mlp(of.norm_1(y)),
    )
    yield (
        "attention and MLP are in the wrong order: attention comes first",
        (y := x_btd + of.mlp(of.norm_2(x_btd))) + of.attention(of.norm_1(y)),
    )
    yield (
        "a residual is missing: each branch is added by itself, and yours adds once, around both",
        x_btd + of.mlp(of.norm_2(of.attention(of.norm_1(x_btd)))),
    )
    yield (
        "the MLP reads the old stream: it should get what attention has already been added to",
        attended + of.mlp(of.norm_2(x_btd)),
    )
    yield "the MLP is missing: only attention is added to the stream", attended
    yield (
        "attention is missing: only the MLP is added to the stream",
        x_btd + of.mlp(of.norm_2(x_btd)),
    )


def models(of: ours.GPT, ids_bt: Tensor) -> Iterator[Named]:
    """GPT, with one mistake at a time."""
    t = ids_bt.shape[1]
    head = of.token_embedding.weight
    assert of.position_embedding is not None and of.norm is not None
    places, norm = of.position_embedding.weight, of.norm

    def through(x_btd: Tensor, count: int) -> Tensor:
        for block in of.blocks[:count]:
            x_btd = block(x_btd, None)
        return x_btd

    def logits(x_btd: Tensor) -> Tensor:
        logits_btv: Tensor = norm(x_btd) @ head.T
        return logits_btv

    begun = of.token_embedding(ids_bt) + places[:t]
    yield (
        "the final norm is missing: after the last block the stream is normalised (norm)",
        through(begun, len(of.blocks)) @ head.T,
    )
    yield (
        "positions are counted from the wrong end: the first token is at position 0, however long "
        "the text is",
        logits(through(of.token_embedding(ids_bt) + places[-t:], len(of.blocks))),
    )
    for count in range(len(of.blocks)):
        yield (
            f"blocks are missing: the stream goes through {count} of {len(of.blocks)}",
            logits(through(begun, count)),
        )
    right = logits(through(begun, len(of.blocks)))
    for given in (right.softmax(-1), right.log_softmax(-1)):
        yield (
            "the softmax is not wanted here: the model gives logits, and the loss and the sampler "
            "make probabilities of them",
            given,
        )
