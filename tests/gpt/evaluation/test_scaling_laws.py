"""Scaling laws: a planted law is recovered, and its intervals cover further runs."""

import numpy as np
import pytest

from gpt.errors import DataError
from gpt.evaluation.scaling_laws import fit_power_law

SIZES = np.geomspace(1e4, 1e6, 6)


def law(x: float | np.ndarray) -> float | np.ndarray:
    return 0.6 + 30.0 * x**-0.35


@pytest.mark.parametrize("floor", [None, 0.6])
def test_a_planted_law_is_recovered(floor: float | None) -> None:
    fitted = fit_power_law(SIZES.tolist(), law(SIZES).tolist(), floor)
    assert fitted.floor == pytest.approx(0.6, abs=1e-3)
    assert fitted.b == pytest.approx(0.35, rel=1e-2)
    assert fitted.at(1e7) == pytest.approx(float(law(1e7)), abs=1e-3)


@pytest.mark.parametrize("floor", [None, 0.6])
def test_the_interval_covers_a_larger_run_about_19_times_in_20(floor: float | None) -> None:
    covered = 0
    for seed in range(100):
        noise = np.random.default_rng(seed).normal(size=7) * 0.01
        fitted = fit_power_law(SIZES.tolist(), (law(SIZES) + noise[:6]).tolist(), floor)
        low, high = fitted.interval(4e6)
        covered += low <= law(4e6) + noise[6] <= high
    assert covered >= 88


def test_the_interval_widens_with_distance_where_the_floor_is_fitted() -> None:
    noise = np.random.default_rng(0).normal(size=6) * 0.01
    fitted = fit_power_law(SIZES.tolist(), (law(SIZES) + noise).tolist())
    widths = [fitted.interval(x)[1] - fitted.interval(x)[0] for x in (1e5, 1e7, 1e9)]
    assert widths[0] < widths[1] < widths[2]


@pytest.mark.parametrize(("floor", "points"), [(None, 3), (0.6, 2)])
def test_too_few_points_are_refused(floor: float | None, points: int) -> None:
    with pytest.raises(DataError, match=f"{points} sizes"):
        fit_power_law(SIZES[:points].tolist(), law(SIZES[:points]).tolist(), floor)


def test_a_floor_above_the_losses_is_refused() -> None:
    with pytest.raises(DataError, match="lies above the loss"):
        fit_power_law(SIZES.tolist(), law(SIZES).tolist(), 0.9)
