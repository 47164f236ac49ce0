"""Canonical decoding: the same text from the same weights on another machine too.

Two processors round sums differently, and one differing draw changes all of a text that follows.
So here the weights compute in float64, on one thread of a CPU, and the logits are rounded before
a token is chosen: what machines differ by (about 1e-13) is far below a step of 1/1024, and moves
a logit over the edge of a step about once in 10^10. It goes through gpt.generation, is slower, and
parts from what that writes where a draw falls between logits that are a little different.
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
    """A copy of `model` whose logits are the same numbers on every machine."""
    copied = copy.deepcopy(model).to("cpu", torch.float64)
    copied.__class__ = _Canonical
    # Angles in float32 differ by 1e-4 between processors at the end of a long block.
    copied.compute_position_tables(torch.float64)
    return copied.eval()


class _Canonical(GPT):
    """The same weights and formulas; gpt/decoding/decoder.py knows no short way for it."""

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
