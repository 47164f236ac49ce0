"""The outputs of part 2's model with each common mistake in it: a mistake is named by its effect.

Each output is computed with the reference's weights. The output of a learner's code is compared
with all of them, and the mistake with the same output is named. The learner's code is not read.

Shapes: b sequences, t positions, d = n_embd, h heads, k = d / h.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gpt import model as ours

Step = Callable[[Tensor], Tensor]
Mistakes = dict[str, list[Tensor]]  # hint: outputs of models that make this mistake


def first_match(output: Tensor, mistakes: Mistakes, tolerance: float) -> str:
    """The hint of the first mistake with this output, or "".

    `tolerance` is relative to the output's largest element; nan equals nan.
    """
    for hint, outputs in mistakes.items():
        for wrong in outputs:
            atol = tolerance * max(float(wrong.nan_to_num().abs().max()), 1.0)
            same_shape = output.shape == wrong.shape
            if same_shape and torch.allclose(output, wrong, rtol=0.0, atol=atol, equal_nan=True):
                return hint
    return ""


def attentions(reference: ours.CausalSelfAttention, x_btd: Tensor) -> Mistakes:
    """CausalSelfAttention, with one mistake at a time."""
    b, t, d = x_btd.shape
    h = reference.n_head
    k = d // h
    later_tt = torch.ones(t, t, dtype=torch.bool).triu(1)
    not_before_tt = later_tt | torch.eye(t, dtype=torch.bool)

    def split(x_btd: Tensor) -> Tensor:
        return x_btd.view(b, t, h, k).transpose(1, 2)

    def join(x_bhtk: Tensor) -> Tensor:
        return x_bhtk.transpose(1, 2).reshape(b, t, d)

    def masked(scores_bhtt: Tensor, mask_tt: Tensor = later_tt, fill: float = -math.inf) -> Tensor:
        return scores_bhtt.masked_fill(mask_tt, fill)

    def weigh(scores_bhtt: Tensor) -> Tensor:
        return masked(scores_bhtt).softmax(-1)

    def attend(
        split: Step = split,
        join: Step = join,
        weigh: Step = weigh,
        scale: float = 1 / math.sqrt(k),
        order: tuple[int, int, int] = (0, 1, 2),
        proj: Step = reference.proj,
    ) -> Tensor:
        qkv = reference.qkv(x_btd).chunk(3, dim=-1)
        q_bhtk, k_bhtk, v_bhtk = (split(qkv[i].contiguous()) for i in order)
        return proj(join(weigh(q_bhtk @ k_bhtk.transpose(2, 3) * scale) @ v_bhtk))

    divisors = {
        f"k = {k}": k,
        "d, the width of the residual stream (or by 2 k: for Python k**1/2 is k / 2)": d,
        "sqrt(d), the width of the residual stream": math.sqrt(d),
        "sqrt(h), of the number of heads": math.sqrt(h),
        "sqrt(t), of the number of positions": math.sqrt(t),
    }
    splits: tuple[Step, ...] = (
        split,
        lambda x_btd: x_btd.reshape(b, h, t, k),
        lambda x_btd: x_btd.view(b, t, k, h).permute(0, 3, 1, 2),
    )
    joins: tuple[Step, ...] = (
        join,
        lambda x_bhtk: x_bhtk.reshape(b, t, d),
        lambda x_bhtk: x_bhtk.permute(0, 2, 3, 1).reshape(b, t, d),
    )
    orders = ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0), (0, 2, 2), (0, 0, 2))
    return {
        "the scale is missing: the scores are not divided by sqrt(k)": [attend(scale=1.0)],
        "the scale is upside down: the scores are multiplied by sqrt(k); divide them": [
            attend(scale=math.sqrt(k))
        ],
        **{
            f"the scale is wrong: the scores are divided by {name}; it should be sqrt(k), the size "
            "of a head": [attend(scale=1 / divisor)]
            for name, divisor in divisors.items()
        },
        "the scale comes after the softmax: the scores are divided by sqrt(k), before it, and the "
        "weights by nothing": [attend(scale=1.0, weigh=lambda s: weigh(s) / math.sqrt(k))],
        "the softmax is on the wrong axis: weights should sum to 1 over the attended positions, "
        "the last axis of (b, h, t, t)": [
            attend(weigh=lambda s, axis=axis: masked(s).softmax(axis))  # type: ignore[misc]
            for axis in (-2, 1, 0)
        ],
        "the mask is missing: every position attends to the future; scores of later positions "
        "become -inf before the softmax": [attend(weigh=lambda s: s.softmax(-1))],
        "the mask is off by one: a position attends to itself too, and yours does not; position 0 "
        "is left with nothing, and a softmax over nothing but -inf is nan": [
            attend(weigh=lambda s: masked(s, not_before_tt).softmax(-1))
        ],
        "the mask is off by one: a position sees one token ahead, the very one it is to predict": [
            attend(weigh=lambda s: masked(s, later_tt.triu(2)).softmax(-1))
        ],
        "the mask is off by one: a position attends to itself too, and yours does not; position 0 "
        "is left with nothing, so that all of its scores are the same, those of the future too": [
            attend(weigh=lambda s: masked(s, not_before_tt, -1e9).softmax(-1))
        ],
        "the softmax is done twice: the second makes all weights about the same, those of the "
        "future too": [attend(weigh=lambda s: weigh(s).softmax(-1))],
        "the softmax is missing: scores are any numbers, and weights are positive and sum to 1": [
            attend(weigh=lambda s: masked(s, fill=0.0))
        ],
        "the softmax is a log_softmax: weights are probabilities, not their logarithms": [
            attend(weigh=lambda s: masked(s).log_softmax(-1))
        ],
        "the mask comes after the softmax: the weights left do not sum to 1; scores of later "
        "positions become -inf before it": [
            attend(weigh=lambda s: masked(s.softmax(-1), fill=0.0))
        ],
        "the mask puts in 0, which is a score like any other: exp(0) is 1; it has to be -inf": [
            attend(weigh=lambda s: masked(s, fill=0.0).softmax(-1))
        ],
        "the mask is upside down: it hides the past and keeps the future": [
            attend(weigh=lambda s, mask=mask: masked(s, mask).softmax(-1))  # type: ignore[misc]
            for mask in (~later_tt, ~not_before_tt)
        ],
        "the heads are mixed up: a head is k consecutive elements of d, and a view alone moves no "
        "axis; check the order of b, t, h and k where heads are split and joined": [
            attend(split=splitting, join=joining) for splitting in splits for joining in joins
        ],
        "queries, keys and values are mixed up: of the 3 d elements of qkv the first d are the "
        "query, then come the key and the value; query times key is the score": [
            attend(order=order) for order in orders
        ],
        "there is one head: the d elements are split into h heads of k = d / h, and each attends "
        "by itself": [
            attend(lambda x_btd: x_btd[:, None], lambda x_bhtk: x_bhtk[:, 0], scale=d**-0.5)
        ],
        "proj is missing: the outputs of the heads are not mixed": [
            attend(proj=lambda x_btd: x_btd)
        ],
    }


def blocks(reference: ours.GPT2Block, x_btd: Tensor) -> Mistakes:
    """Block, with one mistake at a time; all of them have their residuals."""
    attention, mlp = reference.attention, reference.mlp
    norm_1, norm_2 = reference.norm_1, reference.norm_2
    attended = x_btd + attention(norm_1(x_btd))
    without_norm_1 = x_btd + attention(x_btd)
    with_norm_2 = x_btd + attention(norm_2(x_btd))
    mlp_first = x_btd + mlp(norm_2(x_btd))
    return {
        "the norm before attention is missing: what goes into it is not normalized (norm_1)": [
            without_norm_1 + mlp(norm_2(without_norm_1))
        ],
        "the norm before the MLP is missing: what goes into it is not normalized (norm_2)": [
            attended + mlp(attended)
        ],
        "both norms are missing: what goes into a branch is not normalized": [
            without_norm_1 + mlp(without_norm_1)
        ],
        "norm_1 is used twice: the MLP has a norm of its own, norm_2": [
            attended + mlp(norm_1(attended))
        ],
        "the norms are swapped: norm_1 belongs to attention, norm_2 to the MLP": [
            with_norm_2 + mlp(norm_1(with_norm_2))
        ],
        "attention and MLP are in the wrong order: attention comes first": [
            mlp_first + attention(norm_1(mlp_first))
        ],
        "a residual is missing: each branch is added by itself, and yours adds once, around both": [
            x_btd + mlp(norm_2(attention(norm_1(x_btd))))
        ],
        "the MLP reads the old residual stream: it should get the stream after attention was "
        "added": [attended + mlp(norm_2(x_btd))],
        "the MLP is missing: only attention is added to the residual stream": [attended],
        "attention is missing: only the MLP is added to the residual stream": [mlp_first],
    }


def models(reference: ours.GPT, ids_bt: Tensor) -> Mistakes:
    """GPT, with one mistake at a time."""
    t, n_layer = ids_bt.shape[1], len(reference.blocks)
    head = reference.token_embedding.weight
    assert reference.position_embedding is not None and reference.norm is not None
    positions, norm = reference.position_embedding.weight, reference.norm

    def through(x_btd: Tensor, count: int = n_layer) -> Tensor:
        for block in reference.blocks[:count]:
            x_btd = block(x_btd, None)
        return x_btd

    def logits(x_btd: Tensor) -> Tensor:
        logits_btv: Tensor = norm(x_btd) @ head.T
        return logits_btv

    embedded = reference.token_embedding(ids_bt) + positions[:t]
    correct = logits(through(embedded))
    return {
        "the final norm is missing: after the last block the residual stream is normalized "
        "(norm)": [through(embedded) @ head.T],
        "positions are counted from the wrong end: the first token is at position 0, however long "
        "the text is": [logits(through(reference.token_embedding(ids_bt) + positions[-t:]))],
        **{
            f"blocks are missing: the residual stream goes through {count} of {n_layer}": [
                logits(through(embedded, count))
            ]
            for count in range(n_layer)
        },
        "the softmax is not needed here: the model returns logits, and the loss and the sampler "
        "make probabilities of them": [correct.softmax(-1), correct.log_softmax(-1)],
    }
