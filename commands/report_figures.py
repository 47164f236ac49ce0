"""The figures of `gpt report`, drawn by matplotlib as SVG that stands in the page itself."""

import io

import pandas as pd
from matplotlib.figure import Figure

from commands.experiments import Experiment
from gpt.evaluation.plots import baseline_levels, loss_figure
from stages.params import BASELINES, CALIBRATION, POSITIONS


def svg_figures(result: Experiment) -> dict[str, str]:
    """The figures as SVG elements, by their names in the template."""
    curve = result.curve.dropna(subset=["train_loss"])
    rate = _figure("Learning rate", "step", "learning rate")
    rate.gca().plot(curve["step"], curve["learning_rate"])
    norm = _figure("Gradient norm before clipping", "step", "norm")
    norm.gca().plot(curve["step"], curve["grad_norm"])
    if clip := result.params.resolved()[1].grad_clip:
        norm.gca().axhline(clip, linestyle="--", color="black", linewidth=1)
    by_position = _figure("Loss by position in a block", "position", "loss (nats per token)")
    positions = pd.read_csv(POSITIONS)
    by_position.gca().plot(positions["position"], positions["loss"])
    calibration = _figure("Calibration", "probability of the most likely token", "accuracy")
    bins = pd.read_csv(CALIBRATION)
    calibration.gca().plot([0, 1], [0, 1], linestyle="--", color="gray", linewidth=1)
    calibration.gca().scatter(bins["confidence"], bins["accuracy"], s=10 + 300 * bins["share"])
    levels = baseline_levels(result.metrics["val"], result.metrics[BASELINES])
    figures = {
        "loss": loss_figure(result.curve, levels, "Loss while training"),
        "rate": rate,
        "norm": norm,
        "positions": by_position,
        "calibration": calibration,
    }
    return {name: _svg(figure) for name, figure in figures.items()}


def _figure(title: str, x_label: str, y_label: str) -> Figure:
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    return figure


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    title = figure.axes[0].get_title()
    return text[text.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
