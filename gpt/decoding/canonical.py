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
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from gpt.model import GPT

# A power of two, so that a rounded logit is exact in float32 as well.
STEP = 2.0**-10


def canonical(model: GPT) -> GPT:
    """A copy of `model` in eval mode whose logits are the same on every machine."""
    copied: Any = copy.deepcopy(model).cpu().double()  # in this order: Apple's GPUs have no float64
    kind: Any = type(copied)
    copied.__class__ = _rounding(kind)
    if isinstance(copied, GPT):
        # Angles in float32 differ by 1e-4 between processors at the end of a long block.
        copied.compute_position_tables(torch.float64)
    canonical_model: GPT = copied.eval()
    return canonical_model


@cache
def _rounding(kind: type[Any]) -> type[Any]:
    """The class `kind` of models with rounded logits: of our GPT, where a decoder reads them too,
    and else of what a model returns."""
    method = "unembed" if issubclass(kind, GPT) else "forward"
    exact = getattr(kind, method)

    def rounded(self: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        logits: Tensor = exact(self, *args, **kwargs)
        return (logits / STEP).round() * STEP

    return type(kind.__name__, (kind,), {method: rounded})


@contextmanager
def one_thread() -> Iterator[None]:
    """One CPU thread, so that sums are taken in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
