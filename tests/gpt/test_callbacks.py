"""What callbacks measure: the curve, the size of an update, clipped updates and dead units."""

import pytest
import torch
from small_trainer import (
    STEPS,
    curve_of,
    losses_and_weights,
    make_trainer,
    run,
    uninterrupted,
    weights,
)
from torch import Tensor

from gpt import callbacks
from gpt.callbacks import update_ratio

pytestmark = pytest.mark.usefixtures("one_thread")


# --- the curve ------------------------------------------------------------------------------------


def test_a_point_of_the_curve_is_the_mean_of_the_updates_since_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(callbacks, "CURVE_POINTS", 2)
    trainer = make_trainer(eval_every=0)
    losses, _ = losses_and_weights(trainer)
    points = {point["step"]: point.get("train_loss") for point in curve_of(trainer)}
    assert points == {
        3: pytest.approx(sum(losses[:3]) / 3, abs=1e-6),
        6: pytest.approx(sum(losses[3:]) / 3, abs=1e-6),
    }


def test_the_curve_counts_the_tokens_seen() -> None:
    trainer = make_trainer(gradient_accumulation=2)
    trainer.run()
    assert all(point["tokens"] == point["step"] * 2 * 4 * 8 for point in curve_of(trainer))


def test_a_step_with_an_evaluation_has_one_point_with_both_losses() -> None:
    curve = curve_of(uninterrupted("gpt2"))
    assert [point["step"] for point in curve] == list(range(STEPS + 1))
    assert {"train_loss", "val_loss"} <= curve[4].keys()
    assert "val_loss" not in curve[3]


# --- health ---------------------------------------------------------------------------------------


def test_the_ratio_of_an_update_is_the_median_over_the_matrices() -> None:
    before = [torch.full((2, 2), 2.0), torch.ones(3, 3), torch.ones(2, 2)]
    after = [torch.full((2, 2), 2.2), torch.full((3, 3), 1.5), torch.ones(2, 2)]
    assert update_ratio(before, after) == pytest.approx(0.1)


def test_an_evaluation_says_how_far_the_update_before_it_went() -> None:
    trainer = make_trainer()
    seen: dict[int, dict[str, Tensor]] = {}
    run(trainer, on_step_end=lambda t, loss: seen.update({t.progress.step: weights(t)}))
    points = {point["step"]: point for point in curve_of(trainer)}
    assert "update_ratio" not in points[0]
    assert "update_ratio" not in points[3]
    for step in (2, 4, 6):
        matrices = [
            [tensor for tensor in seen[at].values() if tensor.dim() > 1] for at in (step - 1, step)
        ]
        expected = update_ratio(*matrices)
        assert points[step]["update_ratio"] == pytest.approx(expected, rel=1e-4)
        assert expected > 1e-4


@pytest.mark.parametrize(("limit", "expected"), [(0.0, 0.0), (1e-9, 1.0), (1e9, 0.0)])
def test_the_clip_rate_is_the_fraction_of_clipped_updates(limit: float, expected: float) -> None:
    trainer = make_trainer(grad_clip=limit)
    trainer.run()
    rates = [point["clip_rate"] for point in curve_of(trainer) if "clip_rate" in point]
    assert rates == [expected] * STEPS


@pytest.mark.parametrize("architecture", ["gpt2", "modern", "original"])
def test_dead_units_are_those_that_no_token_activates(architecture: str) -> None:
    trainer = make_trainer(architecture=architecture, dropout=0.0)
    with torch.no_grad():
        for block in trainer.model.blocks:
            block.mlp.up.weight.normal_(generator=torch.Generator().manual_seed(0))
        # Zeros: a quarter of the units of the first of two layers.
        trainer.model.blocks[0].mlp.up.weight[:16] = 0.0
    trainer.run()
    assert curve_of(trainer)[0]["dead_units"] == pytest.approx(16 / 128, abs=0.02)


def test_an_evaluation_leaves_no_hook_behind() -> None:
    trainer = make_trainer()
    trainer.run()
    assert not [m for m in trainer.model.modules() if m._forward_pre_hooks]
