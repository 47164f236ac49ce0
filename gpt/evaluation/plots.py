"""Plots of results: PNG files that are the same bytes for the same values."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from gpt.evaluation.baselines import best_ngram


def baseline_levels(val: dict[str, Any], baselines: dict[str, float]) -> dict[str, float]:
    """Baselines in bits per byte, and the scores of validation, as losses in nats per token."""
    best = best_ngram(baselines)
    bits = {
        "guessing": baselines["uniform"],
        "1-gram": baselines["ngram_1"],
        "2-gram": baselines["ngram_2"],
        "3-gram": baselines["ngram_3"],
        f"{best.removeprefix('ngram_')}-gram, the best": baselines[best],
        "gzip": baselines["gzip"],
        "xz": baselines["xz"],
        "the model, on the whole split": val["bits_per_byte"],
    }
    if "floor_bits_per_byte" in val:
        bits["floor: the text's own information"] = val["floor_bits_per_byte"]
    # Nats per token for one bit per byte; a text of one character holds neither.
    nats_per_token = val["loss"] / val["bits_per_byte"] if val["bits_per_byte"] else math.log(2)
    return {label: value * nats_per_token for label, value in bits.items()}


def loss_plot(path: Path, curve: pd.DataFrame, levels: dict[str, float], title: str) -> None:
    """Writes `loss_figure` as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # By default matplotlib writes its own version into the file.
    loss_figure(curve, levels, title).savefig(path, metadata={"Software": None})


def loss_figure(curve: pd.DataFrame, levels: dict[str, float], title: str) -> Figure:
    """The loss curves over the steps, with `levels` (nats per token) as horizontal lines."""
    figure = Figure(figsize=(9, 5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    train = curve.dropna(subset=["train_loss"])
    val = curve.dropna(subset=["val_loss"])
    axes.plot(train["step"], train["train_loss"], label="training", linewidth=1, alpha=0.7)
    axes.plot(val["step"], val["val_loss"], label="validation", marker="o", markersize=3)
    # Highest first, so that the legend has the order of the lines.
    for index, name in enumerate(sorted(levels, key=lambda name: -levels[name]), start=2):
        label = f"{name}: {levels[name]:.2f}"
        axes.axhline(levels[name], linestyle="--", linewidth=1, color=f"C{index}", label=label)
    axes.set(xlabel="step (optimizer updates)", ylabel="loss (nats per token)", title=title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
    return figure
