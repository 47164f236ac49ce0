"""What it costs a training to save states it can be resumed from.

    python benchmarks/checkpoints.py [PRESET ...] [--rounds 20]

For each preset, in turn: about two seconds of updates, and as many with a save among them, hashed
and synced to the disk that holds the repository. The difference is what a save takes from a
training, with what it leaves behind (emptied caches, a busy disk); the share is the larger of both
figures over params.yaml's `runtime.checkpoint_seconds`. Ids are random: nothing depends on them.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from presets import VOCAB_SIZE, make_trainer

from gpt.trainer import Trainer
from gpt.training_state import CheckpointStore
from stages.params import load

REPOSITORY = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("presets", nargs="*", default=["quick", "speedrun", "nanogpt-cpu"])
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    interval = load(str(REPOSITORY / "params.yaml")).runtime.checkpoint_seconds
    ids = np.random.default_rng(0).integers(VOCAB_SIZE, size=100_000).astype(np.uint16)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}; a save every {interval} s"
    )
    print(f"{'preset':12} {'a state':>8} {'a save':>8} {'slowest':>8} {'takes':>8} {'share':>6}")
    for name in options.presets:
        trainer = make_trainer(name, ids)
        with (
            tempfile.TemporaryDirectory(dir=REPOSITORY) as folder,
            CheckpointStore(Path(folder) / "states") as states,
        ):
            _measure(name, trainer, states, options.rounds, interval)


def _measure(
    name: str, trainer: Trainer, states: CheckpointStore, rounds: int, interval: int
) -> None:
    updates = max(2, round(2 / statistics.median(_updates(trainer, 5)[1:])))
    saves, plain, saving = [], [], []
    for _ in range(rounds):
        plain.append(sum(_updates(trainer, updates)))
        before = sum(_updates(trainer, 1))
        start = time.perf_counter()
        states.save(trainer.progress.step, *trainer.state())
        saves.append(time.perf_counter() - start)
        saving.append(before + saves[-1] + sum(_updates(trainer, updates - 1)))
    size = sum(file.stat().st_size for file in next(states.folder.glob("step_*")).iterdir())
    lost = statistics.median(b - a for a, b in zip(plain, saving, strict=True))
    print(
        f"{name:12} {size / 1e6:5.0f} MB {statistics.median(saves):6.2f} s {max(saves):6.2f} s "
        f"{lost:6.2f} s {max(lost, statistics.median(saves)) / interval:6.1%}"
    )


def _updates(trainer: Trainer, number: int) -> list[float]:
    """Does `number` updates; returns the seconds each took."""
    seconds = []
    for _ in range(number):
        start = time.perf_counter()
        trainer.train_step(0)
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
