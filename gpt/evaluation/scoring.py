"""Scores every token of a split, each exactly once. The context of a token makes three protocols:

    loss         half_block_windows: at least half a block of context, or all the text before it
    loss_blocks  block_windows: disjoint blocks, whose first tokens have hardly any context
    loss_crops   random_crops: an estimate of loss_blocks, as nanoGPT's estimate_loss

Shapes: b windows, t positions, v vocabulary, n tokens; `ids` has one id more than is scored.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gpt.device import Device
from gpt.errors import DataError
from gpt.evaluation.bootstrap import bits_per_byte_interval
from gpt.model import GPT
from gpt.tokenizers.base import Tokenizer
from gpt.types import Ids

Span = tuple[int, int]  # start and stop of inputs; targets are one further
Progress = Callable[[int], object]  # called with the number of tokens that went through the model

CROP_TOKENS = 32_768
# Elements, 64 MB of float32: all of a batch would be GBs with GPT-2's ids.
LOG_PROBS_AT_ONCE = 2**24


@dataclass(frozen=True)
class Window:
    """Inputs ids[start:stop]; of its targets, one further, the last `scored` count."""

    start: int
    stop: int
    scored: int


@dataclass(frozen=True)
class TokenScores:
    """For each target ids[1:], shape (n,): its loss in nats, the probability of the model's most
    likely token, and whether the target is that token."""

    losses: NDArray[np.float64]
    confidence: NDArray[np.float64]
    correct: NDArray[np.bool_]


# --- which inputs go through the model ------------------------------------------------------------


def half_block_windows(num_ids: int, block_size: int) -> list[Window]:
    """Windows that overlap by half a block and score targets 1 to num_ids - 1 once."""
    targets = num_ids - 1
    block_size = min(block_size, targets)
    stride = max(1, block_size // 2)
    windows = [Window(0, block_size, block_size)]
    done = block_size
    while done < targets:
        stop = min(done + stride, targets)
        windows.append(Window(stop - block_size, stop, stop - done))
        done = stop
    return windows


def block_windows(num_ids: int, block_size: int) -> list[Window]:
    """Disjoint windows that score targets 1 to num_ids - 1 once; the last may be shorter."""
    targets = num_ids - 1
    return [
        Window(start, min(start + block_size, targets), min(block_size, targets - start))
        for start in range(0, targets, block_size)
    ]


def random_crops(num_ids: int, block_size: int, num_crops: int, seed: int = 0) -> list[Span]:
    """Blocks of inputs at uniformly random positions, as training samples them."""
    block_size = min(block_size, num_ids - 1)
    starts = np.random.default_rng(seed).integers(num_ids - block_size, size=num_crops)
    return [(int(start), int(start) + block_size) for start in starts]


# --- losses ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scorer:
    """Scores ids with a model; about `batch_tokens` tokens go through it at once."""

    model: GPT
    device: Device
    batch_tokens: int
    progress: Progress = lambda tokens: None

    def token_scores(self, ids: Ids, windowings: Sequence[list[Window]]) -> list[TokenScores]:
        """Scores of the targets ids[1:] under each of `windowings`, which score every target once.

        A window that several windowings share goes through the model once: every other half-block
        window is a block of its own. Raises DataError for fewer than two ids, and for a NaN loss.
        """
        if len(ids) < 2:
            raise DataError(f"a split of {len(ids)} tokens cannot be scored; use more text")
        n = len(ids) - 1
        scores = [
            TokenScores(np.full(n, np.nan), np.empty(n), np.empty(n, dtype=np.bool_))
            for _ in windowings
        ]
        users: dict[Span, list[tuple[TokenScores, int]]] = {}
        for target, windows in zip(scores, windowings, strict=True):
            for window in windows:
                users.setdefault((window.start, window.stop), []).append((target, window.scored))
        for (start, stop), span in self.score_spans(ids, sorted(users)):
            for target, scored in users[start, stop]:
                positions = slice(stop - scored, stop)
                target.losses[positions] = span.losses[-scored:]
                target.confidence[positions] = span.confidence[-scored:]
                target.correct[positions] = span.correct[-scored:]
        assert not any(np.isnan(s.losses).any() for s in scores), "the windows score every target"
        return scores

    def crop_losses(self, ids: Ids, crops: list[Span]) -> NDArray[np.float64]:
        """The mean loss of each crop in nats per token, shape (len(crops),)."""
        spans = self.score_spans(ids, crops)
        return np.array([scores.losses.mean(dtype=np.float64) for _, scores in spans])

    def score_spans(self, ids: Ids, spans: list[Span]) -> Iterator[tuple[Span, TokenScores]]:
        """Each span, in order, and the scores of all its targets."""
        for length, group in groupby(spans, key=lambda span: span[1] - span[0]):
            equal, size = list(group), max(1, self.batch_tokens // length)
            for batch in (equal[i : i + size] for i in range(0, len(equal), size)):
                crops = np.stack([ids[start : stop + 1] for start, stop in batch]).astype(np.int64)
                scores_bt = [s.cpu().numpy() for s in self._score_batch(torch.from_numpy(crops))]
                yield from zip(batch, map(TokenScores, *scores_bt), strict=True)
                self.progress(len(batch) * length)

    @torch.no_grad()
    def _score_batch(self, crops_bt: Tensor) -> list[Tensor]:
        """Loss, confidence and correctness of crops_bt[:, 1:], each (b, t - 1)."""
        crops_bt = crops_bt.to(self.device.name)
        targets_bt = crops_bt[:, 1:]
        with self.device.autocast:
            logits_btv = self.model.eval()(crops_bt[:, :-1])
        losses, confidence, correct = [], [], []
        chunk = max(1, LOG_PROBS_AT_ONCE // logits_btv.shape[-1])
        logits_chunks = torch.split(logits_btv.flatten(0, 1), chunk)
        targets_chunks = torch.split(targets_bt.flatten(), chunk)
        for logits_nv, targets_n in zip(logits_chunks, targets_chunks, strict=True):
            log_probs_nv = F.log_softmax(logits_nv.float(), dim=-1)
            losses.append(-log_probs_nv.gather(-1, targets_n[:, None])[:, 0])
            highest_n, most_likely_n = log_probs_nv.max(dim=-1)
            confidence.append(highest_n.exp())
            correct.append(most_likely_n == targets_n)
        scores_bt = [torch.cat(n).view_as(targets_bt) for n in (losses, confidence, correct)]
        if scores_bt[0].isnan().any():
            raise DataError("the model's loss is NaN; train again with a lower train.learning_rate")
        return scores_bt


# --- metrics --------------------------------------------------------------------------------------


def split_metrics(
    half_block: TokenScores, blocks: TokenScores, ids: Ids, tokenizer: Tokenizer
) -> dict[str, float]:
    """The metrics of a split; losses in nats per token, under half_block_windows unless named."""
    token_bytes = tokenizer.token_bytes()
    loss = float(np.mean(half_block.losses))
    low, high = bits_per_byte_interval(half_block.losses, ids, token_bytes)
    return {
        "loss": loss,
        "loss_blocks": float(np.mean(blocks.losses)),
        "bits_per_byte": bits_per_byte(half_block.losses, ids, token_bytes),
        "bits_per_byte_low": low,
        "bits_per_byte_high": high,
        "perplexity": math.exp(loss),
        "tokens": len(ids) - 1,
    }


def crop_metrics(scorer: Scorer, ids: Ids) -> dict[str, float]:
    """The mean loss of random crops, about CROP_TOKENS in all, and its standard error."""
    block_size = scorer.model.config.block_size
    num_crops = max(2, CROP_TOKENS // block_size)  # one crop has no standard error
    losses = scorer.crop_losses(ids, random_crops(len(ids), block_size, num_crops))
    stderr = float(losses.std(ddof=1)) / math.sqrt(num_crops)
    return {"loss_crops": float(losses.mean()), "loss_crops_error": stderr}


def bits_per_byte(losses: NDArray[np.float64], ids: Ids, token_bytes: NDArray[np.int64]) -> float:
    """Total information of the scored tokens in bits, over the bytes of their text.

    The first id of a split is an input only, so its bytes do not count.
    """
    counts = np.bincount(ids[1:], minlength=len(token_bytes))
    return float(losses.sum() / math.log(2) / (counts @ token_bytes))


def calibration_curve(scores: TokenScores, num_bins: int = 15) -> list[dict[str, float]]:
    """Accuracy by confidence, in equal bins of confidence; empty bins are left out.

    `confidence` and `accuracy` are means over the tokens of a bin, `share` is the bin's fraction of
    all tokens. 15 bins as in Guo et al. 2017.
    """
    bin_n = np.minimum((scores.confidence * num_bins).astype(np.int64), num_bins - 1)
    count = np.bincount(bin_n)
    confidence = np.bincount(bin_n, weights=scores.confidence)
    correct = np.bincount(bin_n, weights=scores.correct)
    return [
        {
            "confidence": float(confidence[bin] / count[bin]),
            "accuracy": float(correct[bin] / count[bin]),
            "share": float(count[bin] / len(bin_n)),
        }
        for bin in np.flatnonzero(count)
    ]


def expected_calibration_error(curve: list[dict[str, float]]) -> float:
    """The mean distance of confidence from accuracy (Naeini et al. 2015); 0 is calibrated."""
    return sum(bin["share"] * abs(bin["confidence"] - bin["accuracy"]) for bin in curve)


def loss_by_position(losses: NDArray[np.float64], block_size: int) -> NDArray[np.float64]:
    """The mean loss at each position of a block, shape (t,), from the losses of block_windows."""
    position = np.arange(len(losses)) % block_size
    return np.bincount(position, weights=losses) / np.bincount(position)


def loss_by_class(
    losses: NDArray[np.float64], ids: Ids, tokenizer: Tokenizer
) -> dict[str, dict[str, float]]:
    """For each class of characters that occurs: its mean `loss`, and its `share` of all tokens.

    A token of several characters has the class of its first one that is not a space.
    """
    classes = [_class_of(tokenizer, token) for token in range(tokenizer.vocab_size)]
    names, class_of_token = np.unique(classes, return_inverse=True)
    class_n = class_of_token[ids[1:]]
    count, total = np.bincount(class_n), np.bincount(class_n, weights=losses)
    return {
        str(names[i]): {
            "loss": float(total[i] / count[i]),
            "share": float(count[i] / len(losses)),
        }
        for i in np.flatnonzero(count)
    }


def _class_of(tokenizer: Tokenizer, token: int) -> str:
    if token == tokenizer.bos:
        return "end_of_document"
    text = tokenizer.decode([token])
    character = (text.lstrip(" ") or text)[:1]
    if character == "\ufffd":  # bytes that are a character with the next or previous token's
        return "part_of_character"
    if character in ("\n", "\r"):
        return "line_break"
    if character.isspace():
        return "space"
    if character.isalpha():
        return "capital" if character.isupper() else "letter"
    return "digit" if character.isdigit() else "punctuation"
