"""A Trainer that takes a tenth of a second, with hooks to watch it by."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from torch import Tensor, equal

from gpt.batches import RandomCrops, val_batches
from gpt.callbacks import DeadUnits, TrainingCurve, UpdateRatio
from gpt.config import ModelConfig, TrainConfig
from gpt.device import Device
from gpt.model import GPT
from gpt.trainer import Callback, StepStats, Trainer

CPU = Device(name="cpu", dtype="float32", threads=1, cpu_capability="any", torch="any")
VOCABULARY = 13
# Something to learn, and the same everywhere.
IDS = np.array([n * n % VOCABULARY for n in range(400)], dtype=np.uint16)
STEPS = 6


def train_config(**changes: Any) -> TrainConfig:
    """1,000 steps, of which 100 warm up, from a peak of 1e-3 to 1e-4."""
    settings: dict[str, Any] = {
        "steps": 1000,
        "batch_size": 1,
        "learning_rate": 1e-3,
        "min_learning_rate": 1e-4,
        "warmup_steps": 100,
    }
    return TrainConfig(**(settings | changes))


def make_trainer(
    *, dropout: float = 0.2, batches: Any = None, architecture: str = "gpt2", **changes: Any
) -> Trainer:
    settings: dict[str, Any] = {
        "steps": STEPS,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "min_learning_rate": 1e-3,
        "warmup_steps": 2,
        "eval_every": 2,
    }
    config = TrainConfig(**(settings | changes))
    shape = ModelConfig(
        architecture=architecture, n_layer=2, n_head=2, n_embd=16, block_size=8, dropout=dropout
    )
    crops = RandomCrops(IDS[:300], block_size=8, batch_size=config.batch_size, seed=5)
    val = val_batches(IDS[300:], block_size=8, tokens=64, batch_size=4)
    model, curve = GPT(shape, VOCABULARY, seed=1), TrainingCurve()
    measured = [DeadUnits(curve), UpdateRatio(curve), curve]
    return Trainer(model, batches or crops, val, config, CPU, seed=9, callbacks=measured)


def curve_of(trainer: Trainer) -> list[dict[str, float]]:
    (curve,) = (each for each in trainer.callbacks if isinstance(each, TrainingCurve))
    return curve.points


class Hooks(Callback):
    """A callback of functions, called with the trainer and the loss."""

    def __init__(
        self,
        on_step_end: Callable[[Trainer, float], object] = lambda *_: None,
        on_evaluation: Callable[[Trainer, float], object] = lambda *_: None,
    ) -> None:
        self._on_step_end, self._on_evaluation = on_step_end, on_evaluation

    def on_step_end(self, trainer: Trainer, stats: StepStats) -> None:
        self._on_step_end(trainer, stats.loss)

    def on_evaluation_end(self, trainer: Trainer, val_loss: float) -> None:
        self._on_evaluation(trainer, val_loss)


def run(trainer: Trainer, **hooks: Any) -> None:
    trainer.callbacks.append(Hooks(**hooks))
    trainer.run()
    trainer.callbacks.pop()


def weights(of: Trainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in of.model.state_dict().items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not equal(first[name], second[name])] == []


def losses_and_weights(trainer: Trainer) -> tuple[list[float], dict[str, Tensor]]:
    losses: list[float] = []
    run(trainer, on_step_end=lambda _, loss: losses.append(loss))
    return losses, weights(trainer)


# Each of the two keeps state of another form.
RECIPES = {
    "gpt2": {"architecture": "gpt2"},
    "modern": {"architecture": "modern", "optimizer": "muon"},
}


class Halt(Exception):
    """Ends a run as a kill between two steps would."""


def run_until(trainer: Trainer, step: int) -> None:
    """Trains until `step` updates are done, without the evaluation that may follow."""

    def halt(trainer: Trainer, loss: float) -> None:
        if trainer.progress.step == step:
            raise Halt

    if step:
        with pytest.raises(Halt):
            run(trainer, on_step_end=halt)
        trainer.callbacks.pop()


@cache
def uninterrupted(recipe: str) -> Trainer:
    trainer = make_trainer(**RECIPES[recipe])
    trainer.run()
    return trainer
