"""The uncertainty of a score: how far another text of the same kind and length would move it."""

import math

import numpy as np
from numpy.typing import NDArray

from gpt.types import Ids

# Far longer than what one loss tells of the next; 100,000 tokens are about a hundred blocks.
BLOCK_TOKENS = 1024
RESAMPLES = 2000
RESAMPLES_AT_ONCE = 50  # caps memory; divides RESAMPLES


def bits_per_byte_interval(
    losses: NDArray[np.float64], ids: Ids, token_bytes: NDArray[np.int64], seed: int = 0
) -> tuple[float, float]:
    """The 95 % confidence interval of `scoring.bits_per_byte`, by a block bootstrap (Kunsch 1989).

    It covers the choice of the text, not of the training seed. Losses of neighbouring tokens are
    correlated, so contiguous blocks are resampled, not tokens.
    """
    block = max(1, min(BLOCK_TOKENS, len(losses) // 20))
    starts = np.arange(0, len(losses), block)
    nats = np.add.reduceat(losses, starts)
    sizes = np.add.reduceat(token_bytes[ids[1:]], starts)
    rng = np.random.default_rng(seed)
    estimates = []
    for _ in range(RESAMPLES // RESAMPLES_AT_ONCE):
        sampled = rng.integers(len(starts), size=(RESAMPLES_AT_ONCE, len(starts)))
        bits = nats[sampled].sum(axis=1) / math.log(2)
        estimates.append(bits / np.maximum(1, sizes[sampled].sum(axis=1)))
    low, high = np.quantile(np.concatenate(estimates), [0.025, 0.975])
    return float(low), float(high)
