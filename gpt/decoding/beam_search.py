"""Beam search: a likely continuation as a whole.

Greedy decoding takes the most likely token and never reconsiders; a token that is second at first
may lead to a more likely text. So a few beginnings, the beams, are kept; each is extended by every
token, and the most likely of all extensions are kept again.

It is for short answers that are right or wrong, not for stories: the most likely long text repeats
itself, as greedy text does. Scores are plain sums of log-probabilities without a length penalty, so
where a document may end an early end tends to win. Not here: text and stop strings (generation.py).

Shapes are those of gpt/__init__.py; n = hypotheses that are not complete.
"""

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

import torch

from gpt.decoding.decoder import make_decoder
from gpt.model import GPT


@dataclass(frozen=True)
class Hypothesis:
    """New ids, the sum of their log-probabilities in nats, and whether they are complete."""

    ids: tuple[int, ...]
    log_probability: float
    ended: bool


@torch.inference_mode()
def beam_search(
    model: GPT,
    ids: list[int],
    max_new_tokens: int,
    *,
    beams: int,
    ended: Callable[[tuple[int, ...]], bool] = lambda new: False,
) -> list[Hypothesis]:
    """Up to `beams` continuations of `ids` (at least one id), the most likely first.

    `ended` tells whether new ids are complete; a complete hypothesis stays among the beams while
    the rest are extended. One beam is greedy decoding. The context is that of `generate`: it grows
    to block_size tokens, then its last half is read again. `model` has to be in eval mode.
    """
    device, block_size = next(model.parameters()).device, model.config.block_size
    half = max(1, block_size // 2)
    decoder = make_decoder(model, max_new_tokens)
    context = tuple(ids[-block_size:])
    active, complete = [Hypothesis((), 0.0, False)], list[Hypothesis]()
    new_nt = torch.tensor([context])
    by_likelihood = attrgetter("log_probability")
    for _ in range(max_new_tokens):
        if decoder.length + new_nt.shape[1] > block_size:
            decoder.clear()
            new_nt = torch.tensor([(context + parent.ids)[-half:] for parent in active])
        logits_nv = decoder.read(new_nt.to(device)).float().cpu()
        sums_n1 = torch.tensor([[p.log_probability] for p in active], dtype=torch.float64)
        sums_nv = sums_n1 + logits_nv.double().log_softmax(dim=-1)
        # Stable, so that which of two equals is kept does not depend on the machine.
        ranked = sums_nv.flatten().sort(descending=True, stable=True)
        parent_of: dict[Hypothesis, int] = {}
        for index, total in zip(
            ranked.indices[:beams].tolist(), ranked.values[:beams].tolist(), strict=True
        ):
            parent, token = divmod(index, sums_nv.shape[1])
            new = (*active[parent].ids, token)
            parent_of[Hypothesis(new, total, ended(new))] = parent
        kept = sorted([*complete, *parent_of], key=by_likelihood, reverse=True)[:beams]
        complete = [hypothesis for hypothesis in kept if hypothesis.ended]
        active = [hypothesis for hypothesis in kept if not hypothesis.ended]
        if not active:
            return complete
        decoder.reorder(torch.tensor([parent_of[child] for child in active], device=device))
        new_nt = torch.tensor([child.ids[-1:] for child in active])
    return sorted(complete + active, key=by_likelihood, reverse=True)
