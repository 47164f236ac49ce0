"""Canonical decoding: the same text from the same weights on every machine.

Two processors round sums differently, and one different token changes the rest of a text. So here
the weights compute in float64, on one CPU thread, and logits are rounded before a token is chosen:
machines differ by about 1e-13, which moves a logit across the edge of a step of 1/1024 about once
in 1e10. Slower than plain decoding, and its text differs where the rounding changes a token.

Not here: sampling, which is generation.py's as always.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from gpt.model import GPT

# A power of two, so that a rounded logit is exact in float32 as well.
STEP = 2.0**-10


def canonical(model: GPT) -> GPT:
    """A copy of `model` in eval mode whose logits are the same on every machine."""
    copied = copy.deepcopy(model).cpu().double()  # in this order: Apple's GPUs have no float64
    copied.__class__ = _Canonical
    # Angles in float32 differ by 1e-4 between processors at the end of a long block.
    copied.compute_position_tables(torch.float64)
    return copied.eval()


class _Canonical(GPT):
    def unembed(self, x: Tensor) -> Tensor:
        return (super().unembed(x) / STEP).round() * STEP


@contextmanager
def one_thread() -> Iterator[None]:
    """One CPU thread, so that sums are taken in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
