"""Pictures of results, as PNG files that are the same bytes for the same numbers."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure


def loss_picture(path: Path, curve: pd.DataFrame, levels: dict[str, float], title: str) -> None:
    """The loss curves over the steps, and `levels` (name: nats a token) as horizontal lines."""
    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    train = curve.dropna(subset=["train_loss"])
    val = curve.dropna(subset=["val_loss"])
    axes.plot(train["step"], train["train_loss"], label="training", linewidth=1, alpha=0.7)
    axes.plot(val["step"], val["val_loss"], label="validation", marker="o", markersize=3)
    for index, (name, level) in enumerate(levels.items()):
        axes.axhline(level, linestyle="--", linewidth=1, color=f"C{index + 2}", label=name)
    axes.set_xlabel("step (optimizer updates)")
    axes.set_ylabel("loss (nats per token)")
    axes.set_title(title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the version of the library, which it writes by default.
    figure.savefig(path, metadata={"Software": None})
