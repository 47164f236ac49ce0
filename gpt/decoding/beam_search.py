"""Beam search: of all the ways to go on, one of the likeliest as a whole.

Greedy writing takes the likeliest token and never looks back; a token that is second at first may
lead to a likelier text. So some beginnings, the *beams*, are kept side by side, each is gone on
from by every token, and the likeliest of all these are kept again.

It is for short answers of which one is right. It is not for stories: the likeliest long text goes
in circles, as the greedy one does. Scores are plain sums of log-probabilities, so where a document
may end an early end tends to win; there is no penalty on length.

Shapes: n hypotheses that go on, t positions, v = vocab_size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from gpt.decoding.decoder import Decoder, Rereader
from gpt.model import GPT


@dataclass(frozen=True)
class Hypothesis:
    """New ids, the sum of their log-probabilities in nats, and whether they came to an end."""

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
    """Up to `beams` ways to go on from `ids` (at least one) by max_new_tokens, the likeliest first.

    `ended` says of new ids that they are complete; such a way keeps its place among the beams
    while others go on. One beam is greedy writing. The context is that of `generate`: it grows to
    block_size tokens, then its last half is read again. `model` has to be in eval mode.
    """
    device, block_size = next(model.parameters()).device, model.config.block_size
    half = max(1, block_size // 2)
    decoder: Decoder | Rereader = Rereader(model)
    if isinstance(model, GPT):
        decoder = Decoder(model)
    context = tuple(ids[-block_size:])
    going, done = [Hypothesis((), 0.0, False)], list[Hypothesis]()
    new_nt = torch.tensor([context])
    for _ in range(max_new_tokens):
        if decoder.length + new_nt.shape[1] > block_size:
            decoder.clear()
            new_nt = torch.tensor([(context + one.ids)[-half:] for one in going])
        logits_nv = decoder.read(new_nt.to(device)).float().cpu()
        sums_n1 = torch.tensor([[one.log_probability] for one in going], dtype=torch.float64)
        sums_nv = sums_n1 + logits_nv.double().log_softmax(dim=-1)
        # Stable, so that which of two equals is kept does not depend on the machine.
        ranked = sums_nv.flatten().sort(descending=True, stable=True)
        kept = [(one, -1) for one in done]
        for place, total in zip(
            ranked.indices[:beams].tolist(), ranked.values[:beams].tolist(), strict=True
        ):
            row, token = divmod(place, sums_nv.shape[1])
            new = (*going[row].ids, token)
            kept.append((Hypothesis(new, total, ended(new)), row))
        kept = sorted(kept, key=_likelihood, reverse=True)[:beams]
        done = [one for one, _ in kept if one.ended]
        going_on = [(one, row) for one, row in kept if not one.ended]
        if not going_on:
            return done
        going = [one for one, _ in going_on]
        decoder.reorder(torch.tensor([row for _, row in going_on], device=device))
        new_nt = torch.tensor([one.ids[-1:] for one in going])
    return sorted(done + going, key=lambda one: one.log_probability, reverse=True)


def _likelihood(kept: tuple[Hypothesis, int]) -> float:
    return kept[0].log_probability
