"""N-gram models with Kneser-Ney smoothing: how far mere counting gets, as a step of the ladder.

Interpolated Kneser-Ney (Kneser & Ney 1995; Chen & Goodman 1999, equations 20 to 23) with one
discount an order, on token ids. The probability of a token after its n - 1 predecessors is

    p_n(w | h) = max(c(hw) - D, 0) / c(h) + D * types(h) / c(h) * p_(n-1)(w | h without its first)

where c counts occurrences in the highest order, and in the lower ones how many different tokens
stand before; types(h) is how many different tokens follow h, D = n1 / (n1 + 2 n2) from the numbers
of things counted once and twice, and p_0 is 1 / vocab_size.

Counting is sorting: an n-gram gets the rank of the pair (rank of its first n - 1 tokens, its last
token), for all positions at once. It knows arrays of ids and nothing else.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpt.tokenizers.base import Ids

Ranks = NDArray[np.int64]
Shares = NDArray[np.float64]

# Where nothing stands once or twice the formula says nothing (an alphabet in a long text).
DISCOUNT = 0.5


@dataclass(frozen=True)
class _Order:
    """All n-grams of one n. `ranks` by position of the last token; -1 where there is none."""

    ranks: Ranks
    context: Ranks  # of each n-gram the rank of its first n - 1 tokens
    ending: Ranks  # and of its last n - 1
    count: Ranks  # occurrences in the training ids


def kneser_ney_losses(
    train: Ids, scored: Ids, vocab_size: int, orders: int = 6
) -> list[NDArray[np.float64]]:
    """Losses in nats of scored[1:] under the models of 1, 2, ..., `orders`, shape (n - 1,) each.

    A token with fewer predecessors in `scored` than an order takes gets the loss of a lower order.
    """
    ids = np.concatenate([train, scored]).astype(np.int64)
    counted = _count(ids, len(train), vocab_size, orders)
    at = slice(len(train), None)
    # Of each order the model that lower orders need, by position in `scored`.
    below: Shares = np.full(len(scored), 1.0 / vocab_size)
    highest: Shares = below
    losses = []
    for n, order in enumerate(counted):
        ranks = order.ranks[at]
        first = n  # so many tokens must stand before
        occurrences = _smoothed(order, order.count, ranks, below)
        highest = np.where(np.arange(len(scored)) < first, highest, occurrences)
        losses.append(-np.log(highest[1:]))
        if n + 1 < len(counted):
            longer = counted[n + 1]
            seen = longer.count > 0
            preceded = np.bincount(longer.ending[seen], minlength=len(order.count))
            smoothed = _smoothed(order, preceded, ranks, below)
            below = np.where(np.arange(len(scored)) < first, below, smoothed)
    return losses


def _count(ids: Ranks, trained: int, vocab_size: int, orders: int) -> list[_Order]:
    """The n-grams of 1 .. `orders` in ids[:trained] and in ids[trained:], none across both."""
    shorter = np.zeros(len(ids), dtype=np.int64)
    found: list[_Order] = []
    within = np.concatenate([np.arange(trained), np.arange(len(ids) - trained)])
    for n in range(1, orders + 1):
        valid = np.flatnonzero(within >= n - 1)
        before = shorter[valid - 1] if n > 1 else np.zeros(len(valid), dtype=np.int64)
        keys = before * vocab_size + ids[valid]
        unique, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        ranks = np.full(len(ids), -1, dtype=np.int64)
        ranks[valid] = inverse
        count = np.bincount(inverse[valid < trained], minlength=len(unique))
        found.append(_Order(ranks, unique // vocab_size, shorter[valid[first]], count))
        shorter = ranks
    return found


def _smoothed(order: _Order, count: Ranks, ranks: Ranks, below: Shares) -> Shares:
    """p_n at each of `ranks` (-1: anything), from `count` for each n-gram and p_(n-1)."""
    once, twice = int((count == 1).sum()), int((count == 2).sum())
    discount = once / (once + 2 * twice) if once and twice else DISCOUNT
    contexts = int(order.context.max()) + 1
    together = np.bincount(order.context, weights=count, minlength=contexts)
    types = np.bincount(order.context[count > 0], minlength=contexts)
    context = order.context[ranks]
    total = np.maximum(together[context], 1)
    share = np.maximum(count[ranks] - discount, 0) / total
    left = np.where(together[context] > 0, discount * types[context] / total, 1.0)
    smoothed: Shares = share + left * below
    return smoothed
