"""Bits per byte that need no network: a uniform guess, Kneser-Ney n-grams, gzip and xz.

A model that beats none of them has learned nothing that counting or compression does not know.
Everything here works on arrays of token ids.
"""

import gzip
import lzma
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gpt.evaluation.scoring import bits_per_byte
from gpt.tokenizers.base import Tokenizer
from gpt.types import Ids

MAX_ORDER = 6
# Counting sorts all ids once for each order, and compressing takes a second per MB: with these
# limits both take seconds, whatever the corpus.
MAX_TRAIN_TOKENS = 2_000_000  # the last ones of the training split
MAX_SCORED_TOKENS = 2_000_000  # the first ones of the scored split
MAX_COMPRESSED_BYTES = 4_000_000
DISCOUNT = 0.5  # of an order in which no n-gram occurs once, or none twice

Indices = NDArray[np.int64]
Probabilities = NDArray[np.float64]


def baseline_bits_per_byte(train: Ids, scored: Ids, tokenizer: Tokenizer) -> dict[str, float]:
    """Bits per byte of `scored`, by the name of the baseline.

    `uniform` gives every id the same probability; `ngram_1` to `ngram_6` are counted in `train`;
    `gzip` and `xz`, at their best settings, see the scored text alone.
    """
    text = tokenizer.decode(scored[:MAX_COMPRESSED_BYTES]).encode()[:MAX_COMPRESSED_BYTES]
    train, scored = train[-MAX_TRAIN_TOKENS:], scored[:MAX_SCORED_TOKENS]
    vocab_size, token_bytes = tokenizer.vocab_size, tokenizer.token_bytes()
    losses = {"uniform": np.full(len(scored) - 1, math.log(vocab_size))}
    for n, losses_n in enumerate(kneser_ney_losses(train, scored, vocab_size, MAX_ORDER), start=1):
        losses[f"ngram_{n}"] = losses_n
    bits = {name: bits_per_byte(nats, scored, token_bytes) for name, nats in losses.items()}
    bits["gzip"] = 8 * len(gzip.compress(text, 9, mtime=0)) / max(1, len(text))
    bits["xz"] = 8 * len(lzma.compress(text, preset=9)) / max(1, len(text))
    return bits


def best_ngram(baselines: dict[str, float]) -> str:
    """The name of the best n-gram model among `baselines`."""
    return min((name for name in baselines if name.startswith("ngram_")), key=baselines.__getitem__)


# --- Kneser-Ney -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Ngrams:
    """The distinct n-grams of one order n, each named by its index."""

    at: Indices  # by position of the last token: the n-gram's index, -1 where none ends
    context: Indices  # of each n-gram, ascending: the index of its first n - 1 tokens
    token: Indices  # of each n-gram: its last token, ascending among those of a context
    suffix: Indices  # of each n-gram: the index of its last n - 1 tokens
    count: Indices  # of each n-gram: occurrences in the training ids


def kneser_ney_losses(
    train: Ids, scored: Ids, vocab_size: int, max_order: int = MAX_ORDER
) -> list[NDArray[np.float64]]:
    """Losses in nats of scored[1:] under the models of order 1 to `max_order`, (len - 1,) each.

    Interpolated Kneser-Ney (Kneser & Ney 1995; Chen & Goodman 1999, equations 20 to 23) with one
    discount per order. The probability of a token w after its n - 1 predecessors h is

        p_n(w | h) = max(c(hw) - D, 0) / c(h) + D * types(h) / c(h) * p_(n-1)(w | h[1:])

    where c counts occurrences in the highest order, and in lower orders the distinct tokens that
    precede; types(h) is the number of distinct tokens that follow h; D = n1 / (n1 + 2 n2) from the
    numbers of n-grams with count 1 and 2; and p_0 is 1 / vocab_size. A token with fewer than n - 1
    predecessors in `scored` gets the loss of a lower order.
    """
    ids = np.concatenate([train, scored]).astype(np.int64)
    orders = _count(ids, len(train), vocab_size, max_order)
    position = np.arange(len(scored))
    # p_(n-1) with the counts of a lower order, by position in `scored`.
    lower: Probabilities = np.full(len(scored), 1.0 / vocab_size)
    highest = lower
    losses = []
    for n, ngrams in enumerate(orders, start=1):
        at = ngrams.at[len(train) :]
        smoothed = _smoothed(ngrams, ngrams.count, at, lower)
        highest = np.where(position < n - 1, highest, smoothed)
        losses.append(-np.log(highest[1:]))
        if n < len(orders):
            preceding = _preceding(ngrams, orders[n])
            lower = np.where(position < n - 1, lower, _smoothed(ngrams, preceding, at, lower))
    return losses


class NgramModel:
    """The model of kneser_ney_losses, of one order, as probabilities of all tokens."""

    def __init__(self, train: Ids, vocab_size: int, order: int) -> None:
        self._vocab_size = vocab_size
        self._orders = _count(train.astype(np.int64), len(train), vocab_size, order)
        self._preceding = [_preceding(*pair) for pair in pairwise(self._orders)]

    def probabilities(self, history: Sequence[int]) -> Probabilities:
        """Of the token after `history`, (v,)."""
        order = min(len(self._orders), len(history) + 1)
        probabilities = np.full(self._vocab_size, 1.0 / self._vocab_size)
        for n, ngrams in enumerate(self._orders[:order], start=1):
            context = self._index(history[len(history) - n + 1 :])
            if context is None:
                break  # and there is no longer one
            first, last = np.searchsorted(ngrams.context, [context, context + 1])
            count = ngrams.count if n == order else self._preceding[n - 1]
            total = count[first:last].sum()
            if total:
                discount = _discount(count)
                probabilities *= discount * (count[first:last] > 0).sum() / total
                discounted = np.maximum(count[first:last] - discount, 0) / total
                probabilities[ngrams.token[first:last]] += discounted
        return probabilities

    def _index(self, tokens: Sequence[int]) -> int | None:
        """The index of an n-gram that occurs, 0 of the empty one."""
        index = 0
        for token, ngrams in zip(tokens, self._orders, strict=False):
            first, last = np.searchsorted(ngrams.context, [index, index + 1])
            index = int(first + np.searchsorted(ngrams.token[first:last], token))
            if index == last or ngrams.token[index] != token:
                return None
        return index


def _count(ids: Indices, num_train: int, vocab_size: int, max_order: int) -> list[_Ngrams]:
    """The n-grams of order 1 to `max_order`; none spans ids[:num_train] and ids[num_train:].

    Counting is sorting: an n-gram is the pair (index of its first n - 1 tokens, last token).
    """
    shorter = np.zeros(len(ids), dtype=np.int64)
    orders: list[_Ngrams] = []
    predecessors = np.concatenate([np.arange(num_train), np.arange(len(ids) - num_train)])
    for n in range(1, max_order + 1):
        ends = np.flatnonzero(predecessors >= n - 1)
        context = shorter[ends - 1]
        pairs = context * vocab_size + ids[ends]
        unique, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
        at = np.full(len(ids), -1, dtype=np.int64)
        at[ends] = inverse
        count = np.bincount(inverse[ends < num_train], minlength=len(unique))
        orders.append(_Ngrams(at, *np.divmod(unique, vocab_size), shorter[ends[first]], count))
        shorter = at
    return orders


def _preceding(ngrams: _Ngrams, longer: _Ngrams) -> Indices:
    """Of each n-gram: how many distinct tokens precede it in the (n + 1)-grams `longer`."""
    return np.bincount(longer.suffix[longer.count > 0], minlength=len(ngrams.count))


def _discount(count: Indices) -> float:
    once, twice = int((count == 1).sum()), int((count == 2).sum())
    return once / (once + 2 * twice) if once and twice else DISCOUNT


def _smoothed(ngrams: _Ngrams, count: Indices, at: Indices, lower: Probabilities) -> Probabilities:
    """p_n of the n-grams `at` (undefined where -1) from the `count` of each n-gram and p_(n-1)."""
    discount = _discount(count)
    num_contexts = int(ngrams.context.max()) + 1
    context_count = np.bincount(ngrams.context, weights=count, minlength=num_contexts)
    types = np.bincount(ngrams.context[count > 0], minlength=num_contexts)
    context = ngrams.context[at]
    total = np.maximum(context_count[context], 1)
    discounted = np.maximum(count[at] - discount, 0) / total
    left = np.where(context_count[context] > 0, discount * types[context] / total, 1.0)
    smoothed: Probabilities = discounted + left * lower
    return smoothed
