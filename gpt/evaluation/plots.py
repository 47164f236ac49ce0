"""Pictures of results, as PNG files that are the same bytes for the same numbers."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure


def loss_picture(path: Path, curve: pd.DataFrame, levels: dict[str, float], title: str) -> None:
    """The loss curves over the steps, and `levels` (name: nats a token) as horizontal lines."""
    figure = Figure(figsize=(9, 5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    train = curve.dropna(subset=["train_loss"])
    val = curve.dropna(subset=["val_loss"])
    axes.plot(train["step"], train["train_loss"], label="training", linewidth=1, alpha=0.7)
    axes.plot(val["step"], val["val_loss"], label="validation", marker="o", markersize=3)
    # From the top down, so that the legend stands in the order of the lines.
    for index, name in enumerate(sorted(levels, key=lambda name: -levels[name])):
        label = f"{name}: {levels[name]:.2f}"
        axes.axhline(levels[name], linestyle="--", linewidth=1, color=f"C{index + 2}", label=label)
    axes.set_xlabel("step (optimizer updates)")
    axes.set_ylabel("loss (nats per token)")
    axes.set_title(title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the version of the library, which it writes by default.
    figure.savefig(path, metadata={"Software": None})
