"""How far two trainings drift apart that differ in what decides the bits of a machine.

    python benchmarks/bits.py [--steps 300]

Trains preset `quick` on a little verse for some steps, with one and two threads and with each CPU
capability that this processor has (`ATEN_CPU_CAPABILITY`), the first of them twice. Each is a
process of its own, `python -m stages.train`, that finds no saved states. Prints the weights'
sha256, the losses, and the largest difference of a point of the loss curve from the first training.
"""

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch

# The repository before its tests: tests/gpt must not be taken for the package.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from small_training import SmallTraining

QUICK = {
    "preset": "quick",
    "data__verse_bytes": 200_000,
    **{f"model__{key}": None for key in ("n_layer", "n_head", "n_embd", "block_size", "dropout")},
    **{f"train__{key}": None for key in ("batch_size", "warmup_steps", "eval_every")},
    "train__eval_tokens": 16_384,
}
CAPABILITIES = ("default", "avx2", "avx512")  # as ATEN_CPU_CAPABILITY spells them


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    best = torch.backends.cpu.get_cpu_capability().lower()
    print(f"{platform.machine()}, {os.cpu_count()} cores, {best}, torch {torch.__version__}")
    slower = CAPABILITIES[: CAPABILITIES.index(best)] if best in CAPABILITIES else ()
    settings = [(1, best), (1, best), (2, best), *((1, name) for name in reversed(slower))]
    print(f"{'threads':>7} {'capability':>10} {'sha256':>10} {'train':>9} {'validation':>10} apart")
    first: pd.Series | None = None
    for threads, capability in settings:
        with tempfile.TemporaryDirectory() as folder:
            training = SmallTraining(Path(folder) / "training")
            training.set(**QUICK, train__steps=steps, train__threads=threads)
            training.set(runtime__checkpoint_every=0)
            training.make_tokens()
            done = training.plain("train", 900, ATEN_CPU_CAPABILITY=capability)
            assert done.returncode == 0, done.stdout
            weights = (training.folder / "data/model/model.safetensors").read_bytes()
            metrics = json.loads((training.folder / "metrics/train.json").read_bytes())
            losses = pd.read_csv(training.folder / "metrics/curves/train.csv")["train_loss"]
        first = losses if first is None else first
        print(
            f"{threads:7} {capability:>10} {hashlib.sha256(weights).hexdigest()[:10]} "
            f"{metrics['final_train_loss']:9.6f} {metrics['final_val_loss']:10.6f} "
            f"{(losses - first).abs().max():.6f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
