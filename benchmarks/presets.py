"""Tokens per second of every preset on this machine, and the hours its whole run would take.

    python benchmarks/presets.py [PRESET ...] [--seconds 20]

Updates alone are timed (forward, backward, clip, AdamW; no evaluation), after a
warm-up of three; the presets take turns, so that a slow spell of the machine hits all. Ids are
random: the arithmetic does not depend on them. Hours are computed from the median, not measured.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpt.batches import RandomCrops, val_batches
from gpt.device import choose_device
from gpt.model import GPT
from gpt.model_source import count_parameters
from gpt.presets import PRESETS, resolve
from gpt.trainer import Trainer

VOCAB_SIZE = 65


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("presets", nargs="*", default=list(PRESETS))
    parser.add_argument("--seconds", type=float, default=20.0, help="for each preset, about")
    options = parser.parse_args()
    ids = np.random.default_rng(0).integers(VOCAB_SIZE, size=100_000).astype(np.uint16)
    trainers = {name: make_trainer(name, ids) for name in options.presets}
    device = next(iter(trainers.values())).device
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {device.cpu_capability}, {device.name} "
        f"{device.dtype}, {device.threads} threads, torch {torch.__version__}"
    )
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for trainer in trainers.values():
        for _ in range(3):
            trainer.train_step(0)
    end = time.perf_counter() + options.seconds * len(trainers)
    while time.perf_counter() < end:
        for name, trainer in trainers.items():
            # As many updates a turn as take about a second, so that no preset starves.
            for _ in range(max(1, round(1 / seconds[name][-1])) if seconds[name] else 1):
                start = time.perf_counter()
                trainer.train_step(0)
                seconds[name].append(time.perf_counter() - start)
    print(f"{'preset':12} {'parameters':>11} {'tokens/s':>9} {'steps':>6} {'hours (computed)':>17}")
    for name, trainer in trainers.items():
        config, block_size = trainer.config, trainer.model.config.block_size
        median = statistics.median(seconds[name])
        tokens = config.batch_size * config.gradient_accumulation * block_size
        print(
            f"{name:12} {count_parameters(trainer.model):11,} {tokens / median:9,.0f} "
            f"{config.steps:6,} {config.steps * median / 3600:17.2f}"
        )


def make_trainer(name: str, ids: np.ndarray) -> Trainer:
    shape, config, _ = resolve(name, {}, {})
    device = choose_device(config.device, config.dtype, config.threads)
    block_size, batch_size = shape.block_size, config.batch_size
    model = GPT(shape, VOCAB_SIZE)
    model.train()
    return Trainer(
        model,
        RandomCrops(ids, block_size=block_size, batch_size=batch_size, seed=0),
        val_batches(ids, block_size=block_size, tokens=block_size, batch_size=batch_size),
        config,
        device,
        seed=0,
    )


if __name__ == "__main__":
    main()
