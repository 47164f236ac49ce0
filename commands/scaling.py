"""`gpt scaling`: a series of sizes queued, a power law fitted through its losses, a size predicted.

gpt scaling queue --widths 32,64,96,128,192      then: dvc queue start
gpt scaling fit scale-32 scale-64 ... --over parameters --predict 2e6
"""

import re
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
from commands.plan import vocabulary, with_changes
from commands.root import at_root, fail
from gpt.errors import DataError, ParamsError
from gpt.evaluation.flops import flops_per_token
from gpt.evaluation.scaling_laws import PowerLaw, fit

PICTURE = Path("scaling.png")
PREFIX = "scale"
OVER = ("parameters", "tokens", "flops")
UNITS = {
    "parameters": "parameters",
    "tokens": "tokens of training",
    "flops": "operations of training",
}

app = typer.Typer(no_args_is_help=True, help="How the loss falls as models grow.")


def commands(
    widths: list[int], depths: list[int], flops: float, changes: list[str]
) -> list[list[str]]:
    """The `dvc exp run --queue` of each size; with `flops` each trains for so many operations.

    Raises ParamsError for a size that cannot be built.
    """
    key, sizes = ("n_embd", widths) if widths else ("n_layer", depths)
    if bool(widths) == bool(depths):
        raise ParamsError("give --widths or --depths, as in --widths 32,64,128")
    found = []
    for size in sizes:
        wanted = [*changes, f"model.{key}={size}"]
        params = with_changes(wanted)
        if flops:
            model, train, _ = params.resolved()
            a_step = train.batch_size * train.gradient_accumulation * model.block_size
            a_token = flops_per_token(model, vocabulary(params))
            wanted.append(f"train.steps={max(1, round(flops / (a_step * a_token)))}")
        overrides = [word for change in wanted for word in ("-S", change)]
        name = f"{PREFIX}-{key.removeprefix('n_')}-{size}"
        found.append(["dvc", "exp", "run", "--queue", "--name", name, *overrides])
    return found


def queue(series: list[list[str]]) -> None:
    """Hands the series to DVC's queue. Raises ParamsError where DVC refuses one."""
    if shutil.which("dvc") is None:
        raise ParamsError("dvc is not on PATH: activate the environment")
    for command in series:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["dvc failed"]
            raise ParamsError(f"{command[5]}: {lines[-1]}")


def series_of(names: list[str]) -> list[Experiment]:
    """The experiments named, or all whose names begin as `queue` names them."""
    chosen = names or [name for name in experiments.names() if re.match(rf"{PREFIX}-", name)]
    if not chosen:
        raise ParamsError("no experiments to fit; gpt scaling queue --widths 32,64,96,128 first")
    return [experiments.read(name) for name in chosen]


def sizes_of(series: list[Experiment], over: str) -> list[float]:
    if over == "flops":
        return [one.flops() for one in series]
    return [float(one.train[over]) for one in series]


def floor_of(series: list[Experiment]) -> float | None:
    """What the text is known to hold, in nats a token, where all have it."""
    found = {
        round(one.metrics["val"]["floor_bits_per_byte"] * nats_per_bit(one), 6)
        for one in series
        if "floor_bits_per_byte" in one.metrics["val"]
    }
    return found.pop() if len(found) == 1 else None


def nats_per_bit(one: Experiment) -> float:
    """Nats a token for each bit per byte."""
    return float(one.metrics["val"]["loss"] / one.metrics["val"]["bits_per_byte"])


def law_of(series: list[Experiment], over: str, floor: float | None) -> PowerLaw:
    """The law through the validation losses of the series. Raises DataError, ParamsError."""
    if over not in OVER:
        raise ParamsError(f"--over {over}: choose {', '.join(OVER)}")
    texts = [(one.params.data, one.params.tokenizer) for one in series]
    if any(text != texts[0] for text in texts):
        raise DataError("the experiments are of different texts or tokenizers")
    return fit(sizes_of(series, over), [one.metrics["val"]["loss"] for one in series], floor)


def picture(
    path: Path, series: list[Experiment], over: str, law: PowerLaw, predicted: list[float]
) -> None:
    """Points, line, and the interval of what is predicted."""
    sizes = sizes_of(series, over)
    drawn = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    axes = drawn.add_subplot()
    axes.scatter(sizes, [one.metrics["val"]["loss"] for one in series], label="runs", zorder=3)
    xs = np.geomspace(min(sizes), max([*sizes, *predicted]), 100)
    axes.plot(xs, [law.at(x) for x in xs], label=f"{law.floor:.3f} + {law.a:.3g} x^-{law.b:.3f}")
    low, high = zip(*(law.interval(x) for x in xs), strict=True)
    axes.fill_between(xs, low, high, alpha=0.15, label="95 % of further runs")
    axes.set_xscale("log")
    # Labels at 1, 2 and 5 of a decade: at all of them they would overlap.
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.xaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(4, 4)))
    axes.set_xlabel(UNITS[over])
    axes.set_ylabel("validation loss (nats per token)")
    axes.set_title("Loss by size")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    drawn.savefig(path, metadata={"Software": None})


def text_of(
    series: list[Experiment], over: str, law: PowerLaw, predicted: list[float], known: bool
) -> str:
    """Points, law and predictions for a terminal."""
    sizes = sizes_of(series, over)
    lines = [f"{'experiment':24} {over:>12} {'loss':>8} {'the law':>8}"]
    for size, one in sorted(zip(sizes, series, strict=True), key=lambda pair: pair[0]):
        loss = one.metrics["val"]["loss"]
        lines.append(f"{one.name:24} {size:12.4g} {loss:8.4f} {law.at(size):8.4f}")
    source = "known" if known else "fitted"
    lines.append(f"loss = {law.floor:.4f} ({source}) + {law.a:.4g} * {over}^-{law.b:.4f}")
    for x in predicted:
        low, high = law.interval(x)
        lines.append(f"at {x:.4g} {over}: {law.at(x):.4f}, 95 % of runs {low:.4f} to {high:.4f}")
    return "\n".join(lines)


@app.command("queue")
def queue_series(
    widths: Annotated[str, typer.Option(help="Of model.n_embd, as in 32,64,128.")] = "",
    depths: Annotated[str, typer.Option(help="Of model.n_layer.")] = "",
    flops: Annotated[float, typer.Option(help="Operations that each may spend.")] = 0.0,
    changes: Annotated[
        list[str] | None, typer.Option("-S", "--set-param", help="KEY=VALUE for all of them.")
    ] = None,
) -> None:
    """Queue a series of sizes; `dvc queue start` runs it."""
    with at_root():
        series = commands(_integers(widths), _integers(depths), flops, changes or [])
        queue(series)
        print("\n".join(" ".join(command) for command in series))
        print(f"{len(series)} queued; dvc queue start, then gpt scaling fit")


@app.command("fit")
def fit_series(
    names: Annotated[
        list[str] | None, typer.Argument(help="Experiments; none: those that queue named.")
    ] = None,
    over: Annotated[str, typer.Option(help="parameters, tokens or flops.")] = "parameters",
    predict: Annotated[list[float] | None, typer.Option(help="A size to predict.")] = None,
    floor: Annotated[
        bool, typer.Option(help="Take the floor that is known (verse), or fit one.")
    ] = True,
) -> None:
    """Fit loss = floor + a * x^-b, draw it to scaling.png, predict further sizes."""
    with at_root():
        series = series_of(names or [])
        known = floor_of(series) if floor else None
        law = law_of(series, over, known)
        picture(PICTURE, series, over, law, predict or [])
        print(text_of(series, over, law, predict or [], known is not None))
        print(PICTURE)


def _integers(text: str) -> list[int]:
    """32,64,128 as a list."""
    try:
        return [int(number) for number in text.split(",") if number.strip()]
    except ValueError:
        fail(f"{text}: write whole numbers with commas between, as in 32,64,128")
