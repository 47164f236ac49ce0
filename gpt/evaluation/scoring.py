"""Scoring: the loss of every token of a split, each token once, and what can be told from it.

Three ways, because the context a token is given decides its loss:

    loss          windows that overlap by half a block: every token has at least half a block of
                  context, where so much text stands before it
    loss_blocks   blocks that do not overlap, as some peers score: a block's first tokens have
                  hardly any
    loss_crops    blocks drawn at random, as nanoGPT prints while it trains: an estimate of
                  loss_blocks

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
from gpt.tokenizers.base import Ids, Tokenizer

Span = tuple[int, int]

# A split is resampled in stretches of so many tokens: far longer than what one loss tells of the
# next, and short enough that a split of 100,000 tokens has a hundred of them.
STRETCH = 1024
RESAMPLES = 2000
CALIBRATION_BINS = 15  # as in Guo et al. 2017


@dataclass(frozen=True)
class Window:
    """Inputs ids[start:stop] and targets one further; the last `scored` targets count."""

    start: int
    stop: int
    scored: int


@dataclass(frozen=True)
class TokenScores:
    """Of each target ids[1:], shape (n,): its loss in nats, the probability of the token that the
    model held for likeliest, and whether it was that one."""

    losses: NDArray[np.float64]
    confidence: NDArray[np.float64]
    correct: NDArray[np.bool_]


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


def random_crops(count: int, block_size: int, crops: int, seed: int = 0) -> list[Span]:
    """`crops` blocks (start, stop) of inputs, drawn from `count` ids as training draws them."""
    block_size = min(block_size, count - 1)
    starts = np.random.default_rng(seed).integers(count - block_size, size=crops)
    return [(int(start), int(start) + block_size) for start in starts]


@torch.no_grad()
def token_scores(
    model: GPT,
    ids: Ids,
    ways: Sequence[list[Window]],
    device: Device,
    *,
    batch_tokens: int,
    progress: Callable[[int], None] = lambda tokens: None,
) -> list[TokenScores]:
    """Scores of targets ids[1:], shape (len(ids) - 1,), for each way to cut windows.

    A window that several ways have in common goes through the model once: blocks side by side are
    every other one of those that overlap by half. About `batch_tokens` tokens go through at once;
    `progress` is told how many. Raises DataError where there is nothing to score.
    """
    if len(ids) < 2:
        raise DataError(f"a split of {len(ids)} tokens cannot be scored; use more text")
    model.eval()
    targets = len(ids) - 1
    found = [
        TokenScores(np.full(targets, np.nan), np.empty(targets), np.empty(targets, dtype=np.bool_))
        for _ in ways
    ]
    users: dict[Span, list[tuple[int, int]]] = {}
    for way, windows in enumerate(ways):
        for window in windows:
            users.setdefault((window.start, window.stop), []).append((way, window.scored))
    for batch in _batches(sorted(users), batch_tokens):
        losses_bt, confidence_bt, correct_bt = _scores(model, ids, batch, device)
        for row, (start, stop) in enumerate(batch):
            for way, scored in users[start, stop]:
                where, what = slice(stop - scored, stop), (row, slice(-scored, None))
                found[way].losses[where] = losses_bt[what]
                found[way].confidence[where] = confidence_bt[what]
                found[way].correct[where] = correct_bt[what]
        progress(losses_bt.size)
    assert not any(np.isnan(way.losses).any() for way in found), "every target is scored"
    return found


@torch.no_grad()
def crop_losses(
    model: GPT,
    ids: Ids,
    crops: list[Span],
    device: Device,
    *,
    batch_tokens: int,
    progress: Callable[[int], None] = lambda tokens: None,
) -> NDArray[np.float64]:
    """The mean loss in nats a token of each of `crops`, shape (len(crops),)."""
    model.eval()
    means = []
    for batch in _batches(crops, batch_tokens):
        losses_bt, _, _ = _scores(model, ids, batch, device)
        means.append(losses_bt.mean(axis=1, dtype=np.float64))
        progress(losses_bt.size)
    return np.concatenate(means)


def _scores(
    model: GPT, ids: Ids, batch: list[Span], device: Device
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Loss, confidence and correctness of the targets of spans of equal length, each (b, t)."""
    crops = np.stack([ids[start : stop + 1] for start, stop in batch]).astype(np.int64)
    crops_bt = torch.from_numpy(crops).to(device.name)
    targets_bt = crops_bt[:, 1:]
    with device.autocast:
        logits_btv = model(crops_bt[:, :-1])
    log_shares_btv = F.log_softmax(logits_btv.float(), dim=-1)
    losses_bt = -log_shares_btv.gather(-1, targets_bt[..., None])[..., 0]
    highest_bt, likeliest_bt = log_shares_btv.max(dim=-1)
    correct_bt = likeliest_bt == targets_bt
    return losses_bt.cpu().numpy(), highest_bt.exp().cpu().numpy(), correct_bt.cpu().numpy()


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


# --- what can be told from the losses -------------------------------------------------------------


def bits_per_byte_interval(
    losses: NDArray[np.float64], ids: Ids, token_bytes: NDArray[np.int64], seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of `bits_per_byte`, by a block bootstrap (Kunsch 1989).

    It tells how much another text of the same kind and length would move the figure, not another
    training. The losses of neighbours hang together, so stretches of them are drawn, not tokens.
    """
    stretch = max(1, min(STRETCH, len(losses) // 20))
    starts = np.arange(0, len(losses), stretch)
    nats = np.add.reduceat(losses, starts)
    sizes = np.add.reduceat(token_bytes[ids[1:]], starts)
    drawn = np.random.default_rng(seed).integers(len(starts), size=(RESAMPLES, len(starts)))
    resampled = nats[drawn].sum(axis=1) / math.log(2) / np.maximum(1, sizes[drawn].sum(axis=1))
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(low), float(high)


def calibration(scores: TokenScores, bins: int = CALIBRATION_BINS) -> list[dict[str, float]]:
    """How often the likeliest token is right, by how sure the model was: one entry a filled bin.

    `confidence` and `accuracy` are means over the tokens of a bin of confidences, `share` is the
    bin's part of all tokens.
    """
    which = np.minimum((scores.confidence * bins).astype(np.int64), bins - 1)
    count = np.bincount(which, minlength=bins)
    confidence = np.bincount(which, weights=scores.confidence, minlength=bins)
    correct = np.bincount(which, weights=scores.correct, minlength=bins)
    return [
        {
            "confidence": float(confidence[bin] / count[bin]),
            "accuracy": float(correct[bin] / count[bin]),
            "share": float(count[bin] / len(which)),
        }
        for bin in np.flatnonzero(count)
    ]


def expected_calibration_error(bins: list[dict[str, float]]) -> float:
    """The mean distance of confidence from accuracy (Naeini et al. 2015; 0 is honest)."""
    return sum(one["share"] * abs(one["confidence"] - one["accuracy"]) for one in bins)


def loss_by_position(losses: NDArray[np.float64], block_size: int) -> NDArray[np.float64]:
    """The mean loss at each position of a block, shape (t,), from losses of blocks side by side."""
    position = np.arange(len(losses)) % block_size
    return np.bincount(position, weights=losses) / np.bincount(position)


def loss_by_class(
    losses: NDArray[np.float64], ids: Ids, tokenizer: Tokenizer
) -> dict[str, dict[str, float]]:
    """Mean loss and share of the tokens of each class of characters that occurs, by name.

    A token of several characters belongs to the class of its first one that is not a space.
    """
    names = [_class_of(tokenizer, token) for token in range(tokenizer.vocab_size)]
    classes = sorted(set(names))
    of_token = np.array([classes.index(name) for name in names])[ids[1:]]
    count = np.bincount(of_token, minlength=len(classes))
    total = np.bincount(of_token, weights=losses, minlength=len(classes))
    return {
        name: {"loss": float(total[i] / count[i]), "share": float(count[i] / len(losses))}
        for i, name in enumerate(classes)
        if count[i]
    }


def _class_of(tokenizer: Tokenizer, token: int) -> str:
    if token == tokenizer.bos:
        return "end_of_document"
    text = tokenizer.decode([token])
    character = (text.lstrip(" ") or text)[:1]
    if character in ("\n", "\r"):
        return "line_break"
    if character.isspace():
        return "space"
    if character.isalpha():
        return "capital" if character.isupper() else "letter"
    return "digit" if character.isdigit() else "punctuation"
