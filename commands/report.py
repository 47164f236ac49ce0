"""`gpt report`: the present result on one page that needs no network.

Reads metrics/, data/samples, data/model, dvc.lock, params.yaml, DVC's experiments and, where there
is a tracking store, the samples that training logged. Writes report.html, which is no output of
the pipeline and ignored by git. Figures are SVG inside the page; report.html beside this file is
the template. PyTorch, MLflow, Matplotlib and pandas take seconds to import: each is imported by the
part of the page that needs it, behind the progress bar.
"""

import base64
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tqdm import tqdm

from commands.root import at_root, complete_metrics
from gpt.errors import DataError, GptError
from gpt.evaluation.diagnostics import beaten_by_bigram, diagnose
from gpt.files import read_json
from repro import reproduce
from repro.lockfile import Pipeline
from repro.repository import WorkingFolder, git
from repro.tracking.run import reason
from stages.params import BASELINES, MODEL, PROJECT, SAMPLE_METRICS, SAMPLES

if TYPE_CHECKING:
    from commands.experiments import Experiment

PAGE = Path("report.html")
SECTIONS = 4  # of the page, for the progress bar

app = typer.Typer(add_completion=False)


@app.command("report")
def write_report(
    prompt: Annotated[
        str | None, typer.Option(help="Whose attention is shown; else the first sample's.")
    ] = None,
) -> None:
    """One self-contained page of the present result: report.html, readable without a network."""
    with at_root():
        PAGE.write_text(page(prompt), encoding="utf-8", newline="\n")
    print(f"{PAGE}: open it in a browser")


def page(prompt: str | None) -> str:
    """The page as HTML. Raises GptError where a stage has not run yet."""
    with tqdm(total=SECTIONS, desc="report: scores", disable=None, leave=False) as bar:
        from commands import experiments, report_tables

        result = experiments.read(experiments.WORKSPACE)
        samples = read_samples()
        _next(bar, "figures")
        from commands.report_figures import svg_figures

        with complete_metrics():
            figures = svg_figures(result)
        _next(bar, "attention")
        attention_text = prompt if prompt is not None else samples[0]["text"] if samples else ""
        attention, no_attention = attention_on(attention_text, result.params.model_source)
        _next(bar, "samples while training")
        steps, no_steps = samples_by_step(result)
        bar.update()
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Text of a model is escaped as all else is; the figures alone are marked as safe.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    with complete_metrics():
        points: Any = result.curve.to_dict("records")
        val, baselines = result.metrics["val"], result.metrics[BASELINES]
        worse = filter(None, [beaten_by_bigram(val["bits_per_byte"], baselines["ngram_2"])])
        return environment.get_template("report.html").render(
            title=f"{result.params.preset} on {result.params.data.corpus}",
            subtitle=result.params.changes or "the preset as it is",
            headline=headline(result),
            findings="  ".join(map(str, [*worse, *diagnose(points, math.log(result.vocab_size))])),
            figures=figures,
            steps=steps,
            no_steps=no_steps,
            samples=samples,
            attention_text=attention_text,
            attention=attention,
            no_attention=no_attention,
            scores=report_tables.scores(result.metrics),
            baselines=report_tables.baselines(result.metrics),
            classes=report_tables.classes(result.metrics),
            rules=report_tables.rules(result.metrics),
            novelty=report_tables.novelty(read_json(SAMPLE_METRICS)),
            experiments=report_tables.experiments_on_the_same_text(result),
            reproduce=reproduce_commands(),
            machine=machine(),
            params=report_tables.params(result),
            lineage=report_tables.lineage(),
        )


def _next(bar: "tqdm[Any]", section: str) -> None:
    bar.update()
    bar.set_description(f"report: {section}")


def headline(result: "Experiment") -> list[tuple[str, str, str]]:
    """The figures at the top: name, value, and what it says."""
    val, train = result.metrics["val"], result.train
    interval = f"{val['bits_per_byte_low']:.3f} to {val['bits_per_byte_high']:.3f}"
    figures = [
        ("bits per byte", f"{val['bits_per_byte']:.4f}", interval),
        ("loss", f"{val['loss']:.4f}", "nats per token, validation"),
        ("parameters", f"{train['parameters']:,}", f"{result.vocab_size:,} token ids"),
        ("steps", f"{train['steps']:,}", f"{train['tokens']:,} tokens"),
    ]
    if "above_floor" in val:
        more = f"{val['floor_bits_per_byte']:.3f} is in the text itself"
        figures.insert(1, ("above the floor", f"{val['above_floor']:.4f}", more))
    return figures


def read_samples() -> list[dict[str, Any]]:
    """Of each sample what the page shows. Raises DataError for a file that is none of samples."""
    shown = ("sample", "stop_reason", "text")
    try:
        samples = map(json.loads, SAMPLES.read_text(encoding="utf-8").splitlines())
        return [{key: sample[key] for key in shown} for sample in samples]
    except OSError as error:
        raise DataError(f"{SAMPLES}: {error.strerror}; restore it: dvc checkout") from None
    except (ValueError, LookupError, TypeError):
        raise DataError(f"{SAMPLES}: is not what the stage sample wrote; dvc checkout -f") from None


def attention_on(text: str, source: str) -> tuple[str, str]:
    """The attention of each head on `text` as a PNG in base64, or why there is none."""
    from gpt.checkpoint import load_model
    from gpt.evaluation.attention_maps import attention_plot

    try:
        trained = load_model(MODEL, source)
        png = attention_plot(trained.model, trained.tokenizer, text)
    except GptError as error:
        return "", str(error)  # the rest of the page needs no model
    if png is None:
        return "", "The text is too short, or the attention of this model is not known."
    return base64.b64encode(png).decode(), ""


def samples_by_step(result: "Experiment") -> tuple[list[tuple[int, str]], str]:
    """(step, sample) of each evaluation during training; or none, and why."""
    if not result.params.runtime.tracking:
        return [], "Samples by step of training are kept in MLflow; runtime.tracking is false."
    md5 = Pipeline(WorkingFolder(), result.params.model_dump()).model_md5()
    try:
        from repro.tracking.store import Store

        store = Store(PROJECT)
        for run in store.search(f"tags.`model.md5` = '{md5}'", limit=50) if md5 else ():
            files = store.client.list_artifacts(run.info.run_id, "samples")
            samples = []
            for file in files:
                if name := re.fullmatch(r"samples/step_(\d+)\.txt", file.path):
                    path = store.client.download_artifacts(run.info.run_id, file.path)
                    samples.append((int(name[1]), Path(path).read_text(encoding="utf-8")))
            if samples:
                return sorted(samples), ""
    except Exception as error:  # tracking reports its faults and stops nothing
        return [], f"The tracking store cannot be read: {reason(error)}"
    return [], "The tracking store has no samples of this training."


def reproduce_commands() -> str:
    """The commands that reproduce this result, with the installation and what they cannot see."""
    commit, *run = reproduce.commands(WorkingFolder()).splitlines()
    outputs = (":!metrics", ":!dvc.lock", ":!params.yaml")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *outputs)
    lines = ["# files changed since this commit; commit them first"] if changed else []
    install = "pip install -c constraints.txt -e ."
    return "\n".join([*lines, *([commit, install, *run] if run else [install, commit])])


def machine() -> str:
    """What else the bits of the model depend on."""
    try:
        config = read_json(MODEL / "config.json")
    except DataError:
        return ""
    device = ", ".join(f"{name} {value}" for name, value in sorted(config["device"].items()))
    weights = config["weights_sha256"][:16]
    return f"The same bits on the same kind of machine: {device}. Weights: sha256 {weights}."
