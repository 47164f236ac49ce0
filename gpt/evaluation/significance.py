"""Is one experiment better than another, or is it noise? And how much compute does it save?

Runs of one experiment with different seeds differ by chance. A difference counts when a t-test
finds it larger than chance explains: paired where the same seeds were run in both, since a seed
gives both the same batches, else Welch's. Lower scores are better.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from scipy import stats

LEVEL = 0.05

Curve = Sequence[tuple[float, float]]  # (compute spent, validation loss), in the order of training


@dataclass(frozen=True)
class Verdict:
    """`word` is better, worse, within noise, or unknown (fewer than two seeds).

    `difference` is candidate - base, `p` the probability of a difference as large by chance, `test`
    paired or welch; None where unknown.
    """

    word: str
    difference: float
    p: float | None = None
    test: str | None = None


def compare(base: Mapping[int, float], candidate: Mapping[int, float]) -> Verdict:
    """The verdict on `candidate` against `base`, each {seed: score} of at least one seed."""
    common = sorted(base.keys() & candidate.keys())
    difference = statistics.fmean(candidate.values()) - statistics.fmean(base.values())
    if len(common) >= 2:
        test, differences = "paired", [candidate[seed] - base[seed] for seed in common]
        difference = statistics.fmean(differences)
        constant = len(set(differences)) == 1
    elif len(base) >= 2 and len(candidate) >= 2:
        test = "welch"
        constant = len(set(base.values())) == len(set(candidate.values())) == 1
    else:
        return Verdict("unknown", difference)
    if constant:  # to the last digit: no t-test is defined
        p = 1.0 if difference == 0 else 0.0
    elif test == "paired":
        p = stats.ttest_rel([candidate[s] for s in common], [base[s] for s in common]).pvalue
    else:
        p = stats.ttest_ind(list(candidate.values()), list(base.values()), equal_var=False).pvalue
    word = "within noise" if not p < LEVEL else "better" if difference < 0 else "worse"
    return Verdict(word, difference, float(p), test)


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
    compute, loss = curve[0]
    if loss <= target:
        return compute
    for (before, above), (compute, loss) in pairwise(curve):
        if loss <= target:
            return before + (compute - before) * (above - target) / (above - loss)
    raise AssertionError("both curves reach the target")


def mean_multiplier(base: Sequence[Curve], candidate: Sequence[Curve]) -> float | None:
    """The geometric mean of `compute_multiplier` over all pairs of seeds."""
    multipliers = [compute_multiplier(first, second) for first in base for second in candidate]
    logs = [math.log(value) for value in multipliers if value is not None]
    return math.exp(statistics.fmean(logs)) if logs else None
