"""Scoring: the loss of every token of a split, each token once.

Two ways, because the context a token is given decides its loss:

    loss          windows that overlap by half a block: every token has at least half a block of
                  context, where so much text stands before it
    loss_blocks   blocks that do not overlap, as peers score: a block's first tokens have hardly any

Shapes: b windows, t positions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from gpt.device import Device
from gpt.errors import DataError
from gpt.model import GPT
from gpt.tokenizer import Ids

Span = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """Inputs ids[start:stop] and targets one further; the last `scored` targets count."""

    start: int
    stop: int
    scored: int


def half_block_windows(count: int, block_size: int) -> list[Window]:
    """Windows over `count` ids that score targets 1 .. count-1 once, with context before them."""
    targets = count - 1
    block_size = min(block_size, targets)
    stride = max(1, block_size // 2)
    windows = [Window(0, block_size, block_size)]
    done = block_size
    while done < targets:
        stop = min(done + stride, targets)
        windows.append(Window(stop - block_size, stop, stop - done))
        done = stop
    return windows


def block_windows(count: int, block_size: int) -> list[Window]:
    """Windows side by side that score targets 1 .. count-1 once; the last may be shorter."""
    targets = count - 1
    return [
        Window(start, min(start + block_size, targets), min(block_size, targets - start))
        for start in range(0, targets, block_size)
    ]


@torch.no_grad()
def token_losses(
    model: GPT,
    ids: Ids,
    ways: Sequence[list[Window]],
    device: Device,
    *,
    batch_tokens: int,
    progress: Callable[[int], None] = lambda tokens: None,
) -> list[NDArray[np.float64]]:
    """The loss in nats of targets ids[1:], shape (len(ids) - 1,), for each way to cut windows.

    A window that several ways have in common goes through the model once: blocks side by side are
    every other one of those that overlap by half. About `batch_tokens` tokens go through at once;
    `progress` is told how many. Raises DataError where there is nothing to score.
    """
    if len(ids) < 2:
        raise DataError(f"a split of {len(ids)} tokens cannot be scored; use more text")
    model.eval()
    losses = [np.full(len(ids) - 1, np.nan) for _ in ways]
    users: dict[Span, list[tuple[int, int]]] = {}
    for way, windows in enumerate(ways):
        for window in windows:
            users.setdefault((window.start, window.stop), []).append((way, window.scored))
    for batch in _batches(sorted(users), batch_tokens):
        crops = np.stack([ids[start : stop + 1] for start, stop in batch]).astype(np.int64)
        crops_bt = torch.from_numpy(crops).to(device.name)
        with device.autocast:
            logits_btv = model(crops_bt[:, :-1])
        losses_bt = F.cross_entropy(
            logits_btv.float().transpose(1, 2), crops_bt[:, 1:], reduction="none"
        ).cpu()
        for (start, stop), losses_t in zip(batch, losses_bt.numpy(), strict=True):
            for way, scored in users[start, stop]:
                losses[way][stop - scored : stop] = losses_t[-scored:]
        progress(losses_bt.numel())
    assert not any(np.isnan(way).any() for way in losses), "every target is scored"
    return losses


def _batches(spans: list[Span], batch_tokens: int) -> list[list[Span]]:
    """Runs of spans of equal length, about `batch_tokens` tokens each."""
    batches: list[list[Span]] = []
    for start, stop in spans:
        room = max(1, batch_tokens // (stop - start))
        last = batches[-1] if batches else []
        if last and len(last) < room and last[0][1] - last[0][0] == stop - start:
            last.append((start, stop))
        else:
            batches.append([(start, stop)])
    return batches


def bits_per_byte(losses: NDArray[np.float64], ids: Ids, token_bytes: NDArray[np.int64]) -> float:
    """Total information of the scored tokens in bits, over the bytes of text they stand for.

    The first id of a split is given, not predicted, so its bytes do not count.
    """
    counts = np.bincount(ids[1:], minlength=len(token_bytes))
    return float(losses.sum() / math.log(2) / (counts @ token_bytes))
