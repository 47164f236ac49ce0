"""`gpt scaling`: queues a series of sizes, fits a power law to their losses, predicts a size.

gpt scaling queue --widths 32,64,96,128,192      then: dvc queue start
gpt scaling fit scale-32 scale-64 ... --over parameters --predict 2e6
"""

import shutil
import subprocess
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, LogLocator

from commands import experiments
from commands.experiments import Experiment
from commands.plan import expected_vocab_size, with_changes
from commands.root import at_root, complete_metrics, fail
from gpt.errors import DataError, ParamsError
from gpt.evaluation.flops import flops_per_token, tokens_per_step
from gpt.evaluation.scaling_laws import PowerLaw, fit_power_law

PLOT = Path("scaling.png")
PREFIX = "scale-"  # of the names of queued experiments
UNITS = {"parameters": "parameters", "tokens": "tokens of training", "flops": "FLOPs of training"}

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="How the loss falls as models grow."
)


def queue_commands(
    widths: list[int], depths: list[int], flops: float, changes: list[str]
) -> list[list[str]]:
    """The `dvc exp run --queue` of each size; with `flops`, each trains for that many FLOPs.

    Raises ParamsError for a size that cannot be built.
    """
    key, sizes = ("n_embd", widths) if widths else ("n_layer", depths)
    if bool(widths) == bool(depths):
        raise ParamsError("give --widths or --depths, as in --widths 32,64,128")
    series = []
    for size in sizes:
        size_changes = [*changes, f"model.{key}={size}"]
        params = with_changes(size_changes)
        if flops:
            model, train, _ = params.resolved()
            per_token = flops_per_token(model, expected_vocab_size(params))
            steps = max(1, round(flops / (tokens_per_step(model, train) * per_token)))
            size_changes.append(f"train.steps={steps}")
        overrides = [word for change in size_changes for word in ("-S", change)]
        name = f"{PREFIX}{key.removeprefix('n_')}-{size}"
        series.append(["dvc", "exp", "run", "--queue", "--name", name, *overrides])
    return series


def read_series(names: list[str]) -> list[Experiment]:
    """The experiments `names`, or all that were queued. Raises DataError, ParamsError."""
    chosen = names or [name for name in experiments.names() if name.startswith(PREFIX)]
    if not chosen:
        raise ParamsError("no experiments to fit; gpt scaling queue --widths 32,64,96,128 first")
    series = [experiments.read(name) for name in chosen]
    first = series[0].params
    if any((r.params.data, r.params.tokenizer) != (first.data, first.tokenizer) for r in series):
        raise DataError("the experiments differ in data or tokenizer; name those of one series")
    return series


def floor_of(series: list[Experiment]) -> float | None:
    """The known information of the text in nats per token, where all experiments have it."""
    val = series[0].metrics["val"]
    floors = {run.metrics["val"].get("floor_bits_per_byte") for run in series}
    if len(floors) > 1 or None in floors:
        return None
    return float(val["floor_bits_per_byte"] * val["loss"] / val["bits_per_byte"])


def plot(
    sizes: list[float], losses: list[float], over: str, law: PowerLaw, predicted: list[float]
) -> None:
    """Writes a plot of the points, the law, and its prediction interval."""
    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(sizes, losses, label="runs", zorder=3)
    xs = np.geomspace(min(sizes), max([*sizes, *predicted]), 100)
    axes.plot(xs, [law.at(x) for x in xs], label=f"{law.floor:.3f} + {law.a:.3g} x^-{law.b:.3f}")
    low, high = zip(*(law.interval(x) for x in xs), strict=True)
    axes.fill_between(xs, low, high, alpha=0.15, label="95 % of further runs")
    axes.set_xscale("log")
    # Labels at 1, 2 and 5 of a decade: labels at all nine would overlap.
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.xaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(4, 4)))
    axes.set(xlabel=UNITS[over], ylabel="validation loss (nats per token)", title="Loss by size")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(PLOT, metadata={"Software": None})


@app.command("queue")
def queue_series(
    widths: Annotated[str, typer.Option(help="Values of model.n_embd, as in 32,64,128.")] = "",
    depths: Annotated[str, typer.Option(help="Values of model.n_layer.")] = "",
    flops: Annotated[float, typer.Option(help="FLOPs of each training; 0: as params say.")] = 0.0,
    changes: Annotated[
        list[str] | None, typer.Option("-S", "--set-param", help="KEY=VALUE for all of them.")
    ] = None,
) -> None:
    """Queue a series of sizes; `dvc queue start` runs it."""
    with at_root():
        series = queue_commands(_integers(widths), _integers(depths), flops, changes or [])
        if shutil.which("dvc") is None:
            raise ParamsError("dvc is not on PATH: activate the environment")
        for command in series:
            done = subprocess.run(command, capture_output=True, check=False)
            if done.returncode:
                output = (done.stderr or done.stdout).decode(errors="replace").strip()
                last = (output or "dvc failed").splitlines()[-1]
                raise ParamsError(f"{command[5]}: {last}")
        print("\n".join(" ".join(command) for command in series))
        print(f"{len(series)} queued; dvc queue start, then gpt scaling fit")


@app.command("fit")
def fit_series(
    names: Annotated[
        list[str] | None, typer.Argument(help="Experiments; without names: those that were queued.")
    ] = None,
    over: Annotated[str, typer.Option(help="parameters, tokens or flops.")] = "parameters",
    predict: Annotated[list[float] | None, typer.Option(help="A size to predict.")] = None,
    floor: Annotated[bool, typer.Option(help="Use the known floor (verse), or fit it.")] = True,
) -> None:
    """Fit loss = floor + a * x^-b, plot it to scaling.png, and predict further sizes."""
    with at_root():
        if over not in UNITS:
            raise ParamsError(f"--over {over}: choose {', '.join(UNITS)}")
        series = read_series(names or [])
        with complete_metrics():
            sizes = [run.flops() if over == "flops" else float(run.train[over]) for run in series]
            losses = [float(run.metrics["val"]["loss"]) for run in series]
            known = floor_of(series) if floor else None
        law = fit_power_law(sizes, losses, known)
        plot(sizes, losses, over, law, predict or [])
        print(f"{'experiment':24} {over:>12} {'loss':>8} {'the law':>8}")
        points = zip(sizes, losses, series, strict=True)
        for size, loss, run in sorted(points, key=lambda point: point[0]):
            print(f"{run.name:24} {size:12.4g} {loss:8.4f} {law.at(size):8.4f}")
        source = "fitted" if known is None else "known"
        print(f"loss = {law.floor:.4f} ({source}) + {law.a:.4g} * {over}^-{law.b:.4f}")
        for x in predict or []:
            low, high = law.interval(x)
            print(f"at {x:.4g} {over}: {law.at(x):.4f}, 95 % of runs {low:.4f} to {high:.4f}")
        print(PLOT)


def _integers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",") if number.strip()]
    except ValueError:
        fail(f"{text}: write whole numbers with commas between, as in 32,64,128")
