"""Is one experiment better than another, or is it noise? And how much compute does it save?

Runs of one experiment with different seeds differ by chance. A difference counts when a t-test
finds it larger than chance explains: paired where the same seeds were run in both, since a seed
gives both the same batches, else Welch's. Lower scores are better.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

LEVEL = 0.05

Curve = Sequence[tuple[float, float]]  # (compute spent, validation loss), in the order of training


@dataclass(frozen=True)
class Verdict:
    """`word` is better, worse, within noise, or unknown (fewer than two seeds).

    `difference` is candidate - base, [`low`, `high`] its 95 % confidence interval, `p` the
    probability of a difference as large by chance, `test` paired or welch; None where unknown.
    """

    word: str
    difference: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    test: str | None = None


def compare(base: Mapping[int, float], candidate: Mapping[int, float]) -> Verdict:
    """The verdict on `candidate` against `base`, each {seed: score} of at least one seed."""
    common = sorted(base.keys() & candidate.keys())
    difference = statistics.fmean(candidate.values()) - statistics.fmean(base.values())
    if len(common) >= 2:
        test = "paired"
        differences = [candidate[seed] - base[seed] for seed in common]
        difference = statistics.fmean(differences)
        if max(differences) == min(differences):
            return _without_variance(difference, test)
        result = stats.ttest_rel([candidate[s] for s in common], [base[s] for s in common])
    elif len(base) >= 2 and len(candidate) >= 2:
        test = "welch"
        if len(set(base.values())) == 1 and len(set(candidate.values())) == 1:
            return _without_variance(difference, test)
        result = stats.ttest_ind(list(candidate.values()), list(base.values()), equal_var=False)
    else:
        return Verdict("unknown", difference)
    low, high = result.confidence_interval(1 - LEVEL)
    word = _word(difference) if result.pvalue < LEVEL else "within noise"
    return Verdict(word, difference, float(low), float(high), float(result.pvalue), test)


def _without_variance(difference: float, test: str) -> Verdict:
    """The verdict where all seeds agree to the last digit, for which no t-test is defined."""
    p = 1.0 if difference == 0 else 0.0
    return Verdict(_word(difference), difference, difference, difference, p, test)


def _word(difference: float) -> str:
    return "within noise" if difference == 0 else "better" if difference < 0 else "worse"


def compute_multiplier(base: Curve, candidate: Curve) -> float | None:
    """How many times less compute `candidate` needs for the lowest loss that both reach.

    Curves are interpolated linearly. None where a curve never falls below its first loss.
    """
    if not base or not candidate:
        return None
    target = max(min(loss for _, loss in base), min(loss for _, loss in candidate))
    base_compute, candidate_compute = _compute_to(base, target), _compute_to(candidate, target)
    if min(base_compute, candidate_compute) <= 0:
        return None
    return base_compute / candidate_compute


def _compute_to(curve: Curve, target: float) -> float:
    previous: tuple[float, float] | None = None
    for compute, loss in curve:
        if loss <= target:
            if previous is None:
                return compute
            before, above = previous
            return before + (compute - before) * (above - target) / (above - loss)
        previous = compute, loss
    raise AssertionError("both curves reach the target")


def mean_multiplier(base: Sequence[Curve], candidate: Sequence[Curve]) -> float | None:
    """The geometric mean of `compute_multiplier` over all pairs of seeds."""
    multipliers = [compute_multiplier(first, second) for first in base for second in candidate]
    logs = [math.log(value) for value in multipliers if value is not None]
    return math.exp(statistics.fmean(logs)) if logs else None
