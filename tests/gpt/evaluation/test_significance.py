"""Better, worse or noise: verdicts on scores whose answer is known."""

import numpy as np
import pytest

from gpt.evaluation.significance import compare, compute_multiplier, mean_multiplier

# --- verdicts -------------------------------------------------------------------------------------


def runs(mean: float, stdev: float, seeds: range, noise_seed: int = 0) -> dict[int, float]:
    noise = np.random.default_rng(noise_seed).normal(size=100)
    return {seed: mean + stdev * float(noise[seed]) for seed in seeds}


def test_a_planted_gain_is_better_and_a_planted_loss_worse() -> None:
    base, gain = runs(1.10, 0.005, range(3)), runs(1.05, 0.005, range(3), noise_seed=1)
    assert compare(base, gain).word == "better"
    assert compare(gain, base).word == "worse"
    assert compare(base, gain).test == "paired"


def test_the_same_recipe_twice_is_noise_nineteen_times_in_twenty() -> None:
    words = [
        compare(runs(1.1, 0.01, range(0, 4), i), runs(1.1, 0.01, range(4, 8), i)).word
        for i in range(200)
    ]
    # 5 % of 200 is 10; Welch's test keeps its level within chance.
    assert 185 <= words.count("within noise") <= 198


def test_equal_seeds_are_paired_which_detects_smaller_gains() -> None:
    base = runs(1.10, 0.05, range(5))
    gain = {seed: value - 0.01 - 0.0001 * seed for seed, value in base.items()}
    assert compare(base, gain).word == "better"
    unpaired = {seed + 10: value for seed, value in gain.items()}
    assert compare(base, unpaired).word == "within noise"
    assert compare(base, unpaired).test == "welch"


def test_a_paired_t_test_is_that_of_the_textbook() -> None:
    # Differences 1, 2, 3: mean 2, deviation 1, t = 2 sqrt(3) = 3.464 at 2 degrees, p = 0.0742.
    verdict = compare({1: 1.0, 2: 1.0, 3: 1.0}, {1: 2.0, 2: 3.0, 3: 4.0})
    assert verdict.difference == pytest.approx(2.0)
    assert verdict.p == pytest.approx(0.0742, abs=1e-4)
    assert verdict.word == "within noise"


def test_one_seed_gives_no_verdict() -> None:
    verdict = compare({1: 1.1}, {1: 1.0})
    assert (verdict.word, verdict.p) == ("unknown", None)
    assert verdict.difference == pytest.approx(-0.1)


def test_equal_results_are_noise_and_equal_gains_are_not() -> None:
    assert compare({1: 1.0, 2: 2.0}, {1: 1.0, 2: 2.0}).word == "within noise"
    assert compare({1: 1.0, 2: 2.0}, {1: 0.5, 2: 1.5}).word == "better"


# --- compute --------------------------------------------------------------------------------------


def test_a_run_that_learns_in_half_the_compute_has_a_multiplier_of_two() -> None:
    slow = [(0.0, 4.0), (100.0, 3.0), (200.0, 2.5)]
    fast = [(compute / 2, loss) for compute, loss in slow]
    assert compute_multiplier(slow, fast) == pytest.approx(2)
    assert compute_multiplier(fast, slow) == pytest.approx(0.5)
    assert mean_multiplier([slow, slow], [fast, slow]) == pytest.approx(2**0.5)


def test_the_multiplier_is_taken_at_the_lowest_loss_that_both_reach() -> None:
    base = [(0.0, 4.0), (100.0, 3.0)]
    better = [(0.0, 4.0), (50.0, 3.5), (100.0, 2.5)]  # reaches 3.0 between evaluations, at 75
    assert compute_multiplier(base, better) == pytest.approx(100 / 75)


def test_a_run_that_never_learns_has_no_multiplier() -> None:
    assert compute_multiplier([(0.0, 4.0), (10.0, 4.1)], [(0.0, 4.0), (10.0, 3.0)]) is None
    assert compute_multiplier([], [(0.0, 4.0)]) is None
