"""The confidence interval of a score, on losses whose true mean is known."""

import math

import numpy as np
import pytest

from gpt.evaluation.bootstrap import bits_per_byte_interval


def autoregressive_losses(seed: int, memory: float, count: int = 20_000) -> np.ndarray:
    """An autoregressive series of mean 1; `memory` is the correlation of neighbours."""
    noise = np.random.default_rng(seed).normal(size=count)
    series = np.empty(count)
    value = 0.0
    for i, step in enumerate(noise):
        value = memory * value + step * math.sqrt(1 - memory**2)
        series[i] = 1 + 0.5 * value
    return series


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_the_interval_covers_the_true_mean_about_19_times_in_20(memory: float) -> None:
    ids, one_byte = np.zeros(20_001, np.uint16), np.ones(1, np.int64)
    covered = 0
    for seed in range(40):
        losses = autoregressive_losses(seed, memory) * math.log(2)
        low, high = bits_per_byte_interval(losses, ids, one_byte)
        covered += low <= 1 <= high
    assert 34 <= covered < 40


def test_the_interval_of_correlated_losses_is_wider() -> None:
    ids, one_byte = np.zeros(20_001, np.uint16), np.ones(1, np.int64)
    widths = []
    for memory in (0.0, 0.9):
        losses = autoregressive_losses(0, memory)
        low, high = bits_per_byte_interval(losses, ids, one_byte)
        widths.append(high - low)
    # By sqrt((1 + 0.9) / (1 - 0.9)) = 4.4 for an infinite block.
    assert 3 < widths[1] / widths[0] < 6
