"""Tokens trained a second, of the same model in nanoGPT and here, and the share of the peak.

    python benchmarks/training_speed.py [PATH_TO_NANOGPT] [--shape 4/4/128] [--dtype bfloat16]

One update is timed: batch, forward, backward, clip, AdamW. The two take turns, several updates
each, so that a slow spell of the machine hits both; the peak is a product of two 1024 x 1024
matrices, timed in the same turns. FLOPs a token are 6 parameters + 12 layers x width x block
(Chowdhery et al. 2022), the position embeddings left out, since they are only added.
"""

import argparse
import contextlib
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpt.batches import RandomCrops, val_batches
from gpt.device import DTYPES, choose_device
from gpt.model import GPT
from gpt.model_source import count_parameters
from gpt.presets import resolve
from gpt.trainer import Trainer

# Layers, heads, width, block, batch: nanoGPT's recipe for a CPU; its recipe for a GPU in an
# eighth of the batch, which a CPU takes in one go as well.
SHAPES = {"4/4/128": (4, 4, 128, 64, 12), "6/6/384": (6, 6, 384, 256, 8)}
VOCAB_SIZE = 65
PEAK_SIZE = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("nanogpt", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, {options.dtype}"
    )
    for name in options.shape or SHAPES:
        measure(name, options.nanogpt, options.rounds, options.dtype)
    peak_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"most memory: {peak_memory:.2f} GB, all models and PyTorch together")


def measure(name: str, nanogpt: Path | None, rounds: int, dtype: str) -> None:
    *_, block, batch = SHAPES[name]
    ours, parameters = our_update(name, dtype)
    updates: dict[str, Callable[[], object]] = {"ours": ours}
    if nanogpt:
        updates["nanoGPT"] = their_update(nanogpt, name, dtype)
    a, b = (torch.randn(PEAK_SIZE, PEAK_SIZE, dtype=DTYPES[dtype]) for _ in range(2))
    updates["peak"] = lambda: a @ b
    seconds: dict[str, list[float]] = {who: [] for who in updates}
    for update in updates.values():
        update()
        update()
    for _ in range(rounds):
        for who, update in updates.items():
            # About two seconds a turn, the fastest of which counts: the others were disturbed.
            end, best = time.perf_counter() + 2.0, float("inf")
            while time.perf_counter() < end:
                start = time.perf_counter()
                update()
                best = min(best, time.perf_counter() - start)
            seconds[who].append(best)
    layers, _, width, _, _ = SHAPES[name]
    a_token = 6 * (parameters - block * width) + 12 * layers * width * block
    peak = 2 * PEAK_SIZE**3 / statistics.median(seconds["peak"])
    print(f"{name}, {parameters:,} parameters, {batch} x {block}; peak {peak / 1e9:.0f} GFLOP/s")
    for who in updates:
        if who != "peak":
            rate = batch * block / statistics.median(seconds[who])
            print(f"  {who}: {rate:,.0f} tokens/s, {rate * a_token / peak:.0%} of the peak")
    if nanogpt:
        pairs = zip(seconds["nanoGPT"], seconds["ours"], strict=True)
        ratios = sorted(theirs / ours for theirs, ours in pairs)
        print(
            f"  ours in {ratios[len(ratios) // 2]:.2f} of nanoGPT's tokens/s "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def our_update(name: str, dtype: str) -> tuple[Callable[[], object], int]:
    layers, heads, width, block, batch = SHAPES[name]
    shape, config, _ = resolve(
        "nanogpt-cpu",
        {"n_layer": layers, "n_head": heads, "n_embd": width, "block_size": block},
        {"batch_size": batch},
    )
    ids = np.random.default_rng(0).integers(VOCAB_SIZE, size=100_000).astype(np.uint16)
    model = GPT(shape, VOCAB_SIZE)
    model.train()
    val = val_batches(ids, block_size=block, tokens=block, batch_size=batch)
    batches = RandomCrops(ids, block_size=block, batch_size=batch, seed=0)
    trainer = Trainer(model, batches, val, config, choose_device("cpu", dtype), seed=0)
    return lambda: trainer.train_step(0), count_parameters(model)


def their_update(checkout: Path, name: str, dtype: str) -> Callable[[], object]:
    """nanoGPT's model and optimizer in the loop of its train.py, scaler and all else that is off
    on a CPU left out."""
    sys.path.insert(0, str(checkout))
    import model as nanogpt  # type: ignore[import-not-found]

    layers, heads, width, block, batch = SHAPES[name]
    config = nanogpt.GPTConfig(
        n_layer=layers,
        n_head=heads,
        n_embd=width,
        block_size=block,
        vocab_size=VOCAB_SIZE,
        bias=False,
        dropout=0.0,
    )
    with contextlib.redirect_stdout(None):
        model: Any = nanogpt.GPT(config)
        optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    autocast = (
        torch.autocast("cpu", DTYPES[dtype]) if dtype != "float32" else contextlib.nullcontext()
    )
    ids = torch.randint(VOCAB_SIZE, (100_000,))

    def update() -> None:
        starts = torch.randint(len(ids) - block, (batch,))
        inputs = torch.stack([ids[start : start + block] for start in starts])
        targets = torch.stack([ids[start + 1 : start + 1 + block] for start in starts])
        with autocast:
            _, loss = model(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return update


if __name__ == "__main__":
    main()
