"""What a curve says in words: each finding on a curve made for it, and none on a healthy one."""

import math

import numpy as np
import pytest

from gpt.evaluation.diagnostics import beaten_by_bigram, diagnose

UNIFORM_LOSS = math.log(65)
Curve = list[dict[str, float]]


def curve_of(
    val: list[float], train: list[float] | None = None, every: int = 100, noise: float = 0.02
) -> Curve:
    """An evaluation every `every` steps, and ten training points between two of them."""
    rng = np.random.default_rng(0)
    losses = val if train is None else train
    steps = np.arange(0, every * (len(val) - 1) + 1, every // 10)
    between = np.interp(steps, np.arange(len(losses)) * every, losses)
    points: dict[int, dict[str, float]] = {}
    for step, loss in zip(steps, between, strict=True):
        points[int(step)] = {"step": int(step), "train_loss": loss + rng.normal() * noise}
    for evaluation, loss in enumerate(val):
        points[evaluation * every]["val_loss"] = loss
    return [points[step] for step in sorted(points)]


def titles(curve: Curve) -> list[str]:
    return [finding.title for finding in diagnose(curve, UNIFORM_LOSS)]


FALLING = [4.17, 2.6, 2.1, 1.9, 1.8, 1.75, 1.72, 1.705, 1.70]


def test_nothing_is_reported_for_a_healthy_curve() -> None:
    assert titles(curve_of(FALLING)) == []


def test_a_loss_that_stays_at_the_uniform_baseline_is_not_learning() -> None:
    assert titles(curve_of([4.174, 4.17, 4.168, 4.171, 4.169])) == ["not learning"]
    assert titles(curve_of([4.174])) == []  # it has not begun
    # A vocabulary of one token: there is nothing to learn.
    assert diagnose(curve_of([0.0, 0.0, 0.0], noise=0.0), uniform_loss=0.0) == []


def test_a_model_that_counted_pairs_beat_is_named() -> None:
    assert beaten_by_bigram(3.0, 3.0) is None
    finding = beaten_by_bigram(3.31, 3.3)
    assert finding is not None and "counted pairs of tokens have 3.300" in str(finding)


def test_overfitting_is_dated_from_the_best_evaluation() -> None:
    curve = curve_of([4.17, 2.5, 2.0, 1.9, 1.95, 2.1, 2.3], [4.17, 2.4, 1.8, 1.5, 1.2, 0.9, 0.6])
    (finding,) = diagnose(curve, UNIFORM_LOSS)
    assert finding.title == "overfitting since step 300"
    assert "from 1.900 to 2.300" in finding.evidence
    assert "train.steps 300" in finding.advice


def test_one_bad_evaluation_at_the_end_is_not_overfitting() -> None:
    assert titles(curve_of([*FALLING, 1.75])) == []


def test_a_validation_loss_that_rises_with_the_training_loss_is_not_overfitting() -> None:
    val = [4.17, 2.5, 2.0, 2.2, 2.4]
    assert titles(curve_of(val)) == []


def test_a_spike_is_dated_and_said_to_have_passed() -> None:
    curve = curve_of(FALLING)
    at = next(i for i, point in enumerate(curve) if point["step"] == 450)
    curve[at]["train_loss"] += 1.0
    (finding,) = diagnose(curve, UNIFORM_LOSS)
    assert finding.title == "spike at step 450"
    assert "came back to" in finding.evidence
    for point in curve[at:]:
        point["train_loss"] = 3.5
    assert "stayed up" in diagnose(curve, UNIFORM_LOSS)[0].evidence


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.1])
def test_noise_is_not_taken_for_spikes(noise: float) -> None:
    assert titles(curve_of(FALLING, noise=noise)) == []


def test_a_plateau_is_dated_from_where_the_loss_stopped() -> None:
    stuck = [4.17, 2.5, 2.301, 2.3, 2.3, 2.299, 2.3, 2.299]
    assert titles(curve_of(stuck)) == ["plateau since step 300"]


def test_a_loss_that_falls_to_the_end_needs_more_steps() -> None:
    assert titles(curve_of([4.17, 3.0, 2.6, 2.3, 2.1])) == ["still falling"]


def test_clipping_and_dead_units_are_told_by_their_fractions() -> None:
    curve = curve_of(FALLING)
    for point in curve:
        point["clip_rate"] = 1.0 if point["step"] > 300 else 0.0
        point["dead_units"] = 0.7
    assert titles(curve) == ["clipped at nearly every step", "many dead units"]
    for point in curve:
        point["clip_rate"], point["dead_units"] = 0.5, 0.2
    assert titles(curve) == []


def test_blanks_of_a_table_count_as_missing() -> None:
    columns = {"train_loss", "val_loss", "clip_rate", "dead_units"}
    curve = [dict.fromkeys(columns, math.nan) | point for point in curve_of(FALLING)]
    assert titles(curve) == []
    assert titles([{"step": 0.0}]) == []
    assert titles([]) == []
