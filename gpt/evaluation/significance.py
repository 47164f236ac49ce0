"""Is one experiment better than another, or is it noise? And how much compute does it save?

Results of one experiment with several seeds differ by luck alone. A difference counts when a t-test
takes it for larger than that luck: paired where both were run with the same seeds, since a seed's
batches are the same in both, and Welch's otherwise. Lower figures are better.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.05


@dataclass(frozen=True)
class Verdict:
    """`word` is better, worse, within noise, or unknown (fewer than two seeds).

    `difference` is other - base, [`low`, `high`] its 95 % interval, `p` the probability of such a
    difference by luck; None where there is nothing to tell them from. `test`: paired or welch.
    """

    word: str
    difference: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    test: str | None = None


def compare(base: Mapping[int, float], other: Mapping[int, float]) -> Verdict:
    """The verdict on `other` beside `base`, each {seed: figure} with at least one seed."""
    common = sorted(base.keys() & other.keys())
    difference = statistics.fmean(other.values()) - statistics.fmean(base.values())
    if len(common) >= 2:
        pairs = [other[seed] - base[seed] for seed in common]
        difference = statistics.fmean(pairs)
        if max(pairs) == min(pairs):
            return _without_spread(difference, "paired")
        result = stats.ttest_rel([other[s] for s in common], [base[s] for s in common])
        test = "paired"
    elif len(base) >= 2 and len(other) >= 2:
        if len(set(base.values())) == 1 and len(set(other.values())) == 1:
            return _without_spread(difference, "welch")
        result = stats.ttest_ind(list(other.values()), list(base.values()), equal_var=False)
        test = "welch"
    else:
        return Verdict("unknown", difference)
    low, high = result.confidence_interval(1 - LEVEL)
    word = "within noise"
    if result.pvalue < LEVEL:
        word = "better" if difference < 0 else "worse"
    return Verdict(word, difference, float(low), float(high), float(result.pvalue), test)


def _without_spread(difference: float, test: str) -> Verdict:
    """Every seed says the same to the last digit."""
    word = "within noise" if difference == 0 else "better" if difference < 0 else "worse"
    p = 1.0 if difference == 0 else 0.0
    return Verdict(word, difference, difference, difference, p, test)


Learning = Sequence[tuple[float, float]]  # compute spent, validation loss


def compute_multiplier(base: Learning, other: Learning) -> float | None:
    """How many times less compute `other` takes than `base` for the lowest loss that both reach.

    Each is a curve of (compute, loss); between looks it is taken for straight. None where one of
    them never comes down from where it began.
    """
    if not base or not other:
        return None
    target = max(min(loss for _, loss in base), min(loss for _, loss in other))
    spent = [_compute_to(curve, target) for curve in (base, other)]
    return spent[0] / spent[1] if min(spent) > 0 else None


def _compute_to(curve: Learning, target: float) -> float:
    previous: tuple[float, float] | None = None
    for compute, loss in curve:
        if loss <= target:
            if previous is None:
                return compute
            before, above = previous
            return before + (compute - before) * (above - target) / (above - loss)
        previous = compute, loss
    raise AssertionError("both curves reach the target")


def mean_multiplier(base: Sequence[Learning], other: Sequence[Learning]) -> float | None:
    """The geometric mean of `compute_multiplier` over all pairs of seeds."""
    found = [compute_multiplier(one, two) for one in base for two in other]
    known = [math.log(value) for value in found if value is not None]
    return float(np.exp(np.mean(known))) if known else None
