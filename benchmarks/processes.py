"""Two processes of one thread beside one process of two, in turn, on the same cores.

    python benchmarks/processes.py [--preset nanogpt-cpu] [--rounds 5] [--sharding fsdp]

Each is the stage `train` as users run it. A run of few steps is taken from one of many, so that
starting up does not count. Prints updates a second of both, and the ratio of each pair: 1 would be
that exchanging gradients costs nothing.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

# The repository before its tests: tests/gpt must not be taken for the package.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from small_training import SmallTraining

SHAPE = ("n_layer", "n_head", "n_embd", "block_size", "dropout")
RECIPE = ("batch_size", "warmup_steps", "eval_every")


def seconds(training: SmallTraining, steps: int, **params: Any) -> float:
    training.set(train__steps=steps, **params)
    start = time.perf_counter()
    done = training.plain("train", 1200)
    assert done.returncode == 0, done.stdout
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="nanogpt-cpu")
    parser.add_argument("--sharding", default="ddp")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--few", type=int, default=10)
    parser.add_argument("--many", type=int, default=110)
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, "
        f"{options.preset}, {options.sharding}, {options.many - options.few} updates a turn"
    )
    with tempfile.TemporaryDirectory() as folder:
        training = SmallTraining(Path(folder) / "training")
        training.set(preset=options.preset, data__verse_bytes=200_000)
        training.set(**{f"model__{key}": None for key in SHAPE})
        training.set(**{f"train__{key}": None for key in RECIPE})
        training.set(train__eval_every=0, train__sharding=options.sharding)
        training.set(runtime__checkpoint_every=0)
        training.make_tokens()
        ways: dict[str, dict[str, Any]] = {
            "1 x 2": {"train__processes": 1, "train__threads": 2},
            "2 x 1": {"train__processes": 2, "train__threads": 1},
        }
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, params in ways.items():
                few = seconds(training, options.few, **params)
                many = seconds(training, options.many, **params)
                speeds[name].append((options.many - options.few) / (many - few))
    for name, values in speeds.items():
        print(f"{name} (processes x threads): {statistics.median(values):6.2f} updates/s")
    ratios = sorted(two / single for single, two in zip(*speeds.values(), strict=True))
    print(
        f"two processes beside two threads: {statistics.median(ratios):.2f} "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


if __name__ == "__main__":
    main()
