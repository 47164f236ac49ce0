"""`gpt report`: everything that is known of the present result, as one page that needs no network.

Reads metrics/, data/samples, dvc.lock, params.yaml, DVC's experiments, and the texts that training
wrote at its looks from the tracking store, where they are; writes report.html, which git ignores
and DVC does not know. The plotting library (Bokeh's, 1.3 MB) stands in the page.
"""

import base64
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from bokeh.embed import components
from bokeh.models import HoverTool, Span
from bokeh.palettes import Category10
from bokeh.plotting import figure
from bokeh.resources import Resources
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from commands import experiments
from commands.experiments import Experiment
from commands.root import at_root
from gpt.checkpoint import load_model
from gpt.errors import DataError, GptError, ParamsError
from gpt.evaluation.attention_maps import attention_picture
from gpt.evaluation.diagnostics import diagnose
from gpt.evaluation.plots import baseline_levels
from gpt.files import read_json
from repro.lockfile import Pipeline, read_yaml
from repro.repository import WorkingFolder, git
from repro.tracking.run import reason
from stages.params import CALIBRATION, MODEL, POSITIONS, PROJECT, SAMPLE_METRICS, SAMPLES

PAGE = Path("report.html")
TEMPLATE = "report.html"
HEIGHT = 300
# More rows than these help nobody; `gpt ui` has them all.
OTHERS_SHOWN = 30
# Of the scores; the others follow by name.
FIRST = (
    *("bits_per_byte", "bits_per_byte_low", "bits_per_byte_high"),
    *("floor_bits_per_byte", "above_floor", "loss", "loss_blocks", "loss_crops"),
)

Step = tuple[int, str]

app = typer.Typer()


def write(path: Path = PAGE, prompt: str | None = None) -> None:
    """Writes the page, with attention on `prompt`, or else on the first sample.

    Raises GptError where a stage has not run yet.
    """
    one = experiments.read(experiments.WORKSPACE)
    sample = read_json(SAMPLE_METRICS)
    steps, no_steps = texts_by_step(one)
    written = samples()
    shown = written[0]["text"] if prompt is None and written else prompt or ""
    looked_at, attention, no_attention = attention_on(shown, one.params.model_source)
    plots = pictures(one)
    script, places = components({name: plot for name, plot in plots.items() if plot is not None})
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template(TEMPLATE).render(
        title=f"{one.params.preset} on {one.params.data.corpus}",
        subtitle=one.params.changes or "the preset as it is",
        figures=headline(one),
        diagnosis="  ".join(str(finding) for finding in findings(one)),
        steps=steps,
        no_steps=no_steps,
        samples=written,
        looked_at=looked_at,
        attention=attention,
        no_attention=no_attention,
        **tables(one, sample),
        others=others(one),
        reproduce=reproduce(one),
        machine=machine(),
        lineage=lineage(),
        # Made by Bokeh and by nobody else: the texts of a model are escaped as all else is.
        plots={name: Markup(place) for name, place in places.items()},  # noqa: S704
        script=Markup(script),  # noqa: S704
        library=Markup(Resources(mode="inline", components=["bokeh"]).render_js()),  # noqa: S704
    )
    path.write_text(page, encoding="utf-8")


# --- what the page says ---------------------------------------------------------------------------


def headline(one: Experiment) -> list[tuple[str, str, str]]:
    val = one.metrics["val"]
    interval = f"{val['bits_per_byte_low']:.3f} to {val['bits_per_byte_high']:.3f}"
    found = [
        ("bits per byte", f"{val['bits_per_byte']:.4f}", interval),
        ("loss", f"{val['loss']:.4f}", "nats per token, validation"),
        ("parameters", f"{one.train['parameters']:,}", f"{one.vocab_size:,} token ids"),
        ("steps", f"{one.train['steps']:,}", f"{one.train['tokens']:,} tokens"),
    ]
    if "above_floor" in val:
        floor = f"{val['floor_bits_per_byte']:.3f} is in the text itself"
        found.insert(1, ("above the floor", f"{val['above_floor']:.4f}", floor))
    return found


def findings(one: Experiment) -> list[Any]:
    points = one.curve.to_dict("records")
    return list(diagnose(points, float(np.log(one.vocab_size))))  # type: ignore[arg-type]


def samples() -> list[dict[str, Any]]:
    try:
        lines = SAMPLES.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{SAMPLES}: {error.strerror}; bring it back: dvc checkout") from None
    return [json.loads(line) for line in lines]


def attention_on(text: str, source: str) -> tuple[str, str, str]:
    """The text, the picture of what each head looks at in it (base64), or why there is none."""
    try:
        trained = load_model(MODEL, source)
        png = attention_picture(trained.model, trained.tokenizer, text)
    except GptError as error:
        # The rest of the page needs no model.
        return text, "", str(error)
    if png is None:
        return text, "", "The text is too short, or the attention of this model is not known."
    return text, base64.b64encode(png).decode(), ""


def texts_by_step(one: Experiment) -> tuple[list[Step], str]:
    """What the model wrote at each look, by step; or none, and why."""
    if not one.params.runtime.tracking:
        return [], "Texts by step of training are kept in MLflow, and runtime.tracking is false."
    pipeline = Pipeline(WorkingFolder(), one.params.model_dump())
    md5 = pipeline.model_md5()
    try:
        from repro.tracking.store import Store

        store = Store(PROJECT)
        for run in store.search(f"tags.`model.md5` = '{md5}'", limit=50) if md5 else ():
            found = {
                int(file.path.rpartition("_")[2].removesuffix(".txt")): file.path
                for file in store.client.list_artifacts(run.info.run_id, "samples")
                if file.path.startswith("samples/step_")
            }
            if found:
                texts = [(step, _artifact(store, run, found[step])) for step in sorted(found)]
                return texts, ""
    except Exception as error:
        # As with all of tracking: said, and never in the way.
        return [], f"The tracking store cannot be read: {reason(error)}"
    return [], "The tracking store has no texts of this training."


def _artifact(store: Any, run: Any, path: str) -> str:
    return Path(store.client.download_artifacts(run.info.run_id, path)).read_text(encoding="utf-8")


def tables(one: Experiment, sample: dict[str, Any]) -> dict[str, Any]:
    """Rows of the tables of scores, params and what is new."""
    metrics = one.metrics
    splits = [split for split in ("val", "test", "train") if split in metrics]
    known = [name for name, value in metrics["val"].items() if not isinstance(value, dict)]
    names = sorted(known, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    scores = [
        [name.replace("_", " "), *(metrics[split].get(name, "") for split in splits)]
        for name in names
    ]
    ladder = {
        f"{name[-1]}-gram" if name.startswith("ngram_") else name: value
        for name, value in metrics["ladder"].items()
    }
    ladder["the model"] = metrics["val"]["bits_per_byte"]
    if "floor_bits_per_byte" in metrics["val"]:
        ladder["the text's own information"] = metrics["val"]["floor_bits_per_byte"]
    classes = metrics["val"]["by_class"]
    novelty = sample["novelty"]
    held_out = novelty["validation"]
    new = [["longest run shared with train, characters", novelty["longest_shared_run"],
            held_out["longest_shared_run"]]]  # fmt: skip
    new += [
        [f"share of {int(n)}-grams of characters that are new", share, held_out["new_ngrams"][n]]
        for n, share in novelty["new_ngrams"].items()
        if int(n) % 4 == 0
    ]
    for name, text in (
        ("distinct_1", "different words"),
        ("distinct_2", "different pairs of words"),
        ("rouge_2_train", "Rouge-2 with the nearest passage of train"),
        ("rouge_2_among", "Rouge-2 among samples"),
    ):
        new.append([text, novelty[name], ""])
    new += [[name.replace("_", " "), value, ""] for name, value in sample.get("verse", {}).items()]
    changed = one.params.resolved()[2]
    params = [
        [key, "" if value is None else str(value), "overridden" * _is_changed(key, changed)]
        for key, value in one.params.flat().items()
    ]
    return {
        "score_heads": ["", *splits],
        "scores": scores,
        "ladder": sorted(ladder.items(), key=lambda step: -step[1]),
        "classes": [
            [name.replace("_", " "), facts["loss"], facts["share"]]
            for name, facts in sorted(classes.items(), key=lambda item: -item[1]["loss"])
        ],
        "novelty": new,
        "params": params,
    }


def _is_changed(key: str, changed: dict[str, Any]) -> bool:
    section, _, name = key.partition(".")
    return section in ("model", "train") and name in changed


def others(one: Experiment) -> list[list[Any]]:
    """DVC's experiments on the same text, the best first."""
    setting = one.setting()
    found: list[tuple[float, str, str]] = []
    for name in experiments.names()[1:]:
        try:
            other = experiments.read(name)
        except ParamsError:
            continue  # queued, failed, or of another version: there is nothing to show of it
        theirs = other.setting()
        if all(theirs.get(key) == setting[key] for key in setting if key.startswith("data.")):
            different = [f"{key.rpartition('.')[2]}={theirs[key]}" for key in setting
                         if theirs.get(key) != setting[key]]  # fmt: skip
            changes = ", ".join([*different, f"seed={other.params.seed}"])
            found.append((other.bits_per_byte, name, changes))
    return [[name, bits, changes] for bits, name, changes in sorted(found)[:OTHERS_SHOWN]]


def reproduce(one: Experiment) -> str:
    """The commands that give this result again."""
    commit = (git("rev-parse", "--short=12", "HEAD") or b"").decode().strip()
    changed = (git("status", "--porcelain", "--untracked-files=no") or b"").decode().strip()
    lines = []
    if changed:
        lines.append("# Files were changed since the last commit: commit them, to find them again.")
    if commit:
        lines.append(f"git checkout {commit}")
    lines += ["pip install -c constraints.txt -e .", "dvc repro", "", "# or, from anywhere:"]
    params = one.params
    overridden = params.resolved()[2]
    changes = "".join(
        f" -S {section}.{key}={value}"
        for section, values in (("model", params.model), ("train", params.train))
        for key, value in values.model_dump().items()  # type: ignore[attr-defined]
        if key in overridden
    )
    fixed = f"-S preset={params.preset} -S data.corpus={params.data.corpus} -S seed={params.seed}"
    return "\n".join([*lines, f"dvc exp run {fixed}{changes}"])


def machine() -> str:
    """What the bits of the model depend on besides."""
    try:
        record = read_json(MODEL / "config.json")
    except DataError:
        return ""
    device = record["device"]
    facts = ", ".join(f"{name} {device[name]}" for name in sorted(device))
    return (
        f"The same bits on the same kind of machine: {facts}. Weights: sha256 "
        f"{record['weights_sha256'][:16]}."
    )


def lineage() -> list[list[str]]:
    """For each stage what it read and wrote, by the first digits of DVC's hashes."""
    rows = []
    for name, stage in (read_yaml(WorkingFolder(), "dvc.lock").get("stages") or {}).items():
        deps = stage.get("deps") or []
        read = [entry for entry in deps if not entry["path"].endswith(".py")]
        code = len(deps) - len(read)
        inputs = [f"{entry['path']} {entry['md5'][:8]}" for entry in read] + [f"{code} code files"]
        outputs = [f"{entry['path']} {entry['md5'][:8]}" for entry in stage.get("outs") or []]
        rows.append([name, ", ".join(inputs), ", ".join(outputs)])
    return rows


# --- pictures -------------------------------------------------------------------------------------


def pictures(one: Experiment) -> dict[str, Any]:
    """Bokeh's figures, by their place in the page."""
    curve = one.curve
    loss = _figure("Loss while training", "step (optimizer updates)", "loss (nats per token)", 480)
    train, val = curve.dropna(subset=["train_loss"]), curve.dropna(subset=["val_loss"])
    loss.line(train["step"], train["train_loss"], legend_label="training", alpha=0.6)
    loss.line(val["step"], val["val_loss"], legend_label="validation", color="#d95f02", width=2)
    loss.scatter(val["step"], val["val_loss"], legend_label="validation", color="#d95f02", size=6)
    last = float(curve["step"].max())
    lines = sorted(baseline_levels(one.metrics).items(), key=lambda level: -level[1])
    for (name, level), colour in zip(lines, (Category10[10] * 2), strict=False):
        # As a line, and not a span, so that the legend can hide it.
        loss.line(
            [0, last],
            [level, level],
            legend_label=f"{name}: {level:.2f}",
            color=colour,
            dash="dashed",
        )
    loss.y_range.start = 0
    loss.legend.click_policy = "hide"
    loss.legend.label_text_font_size = "11px"
    loss.legend.spacing = 0
    loss.add_layout(loss.legend[0], "below")
    loss.legend.location = "left"
    loss.legend.ncols = 2
    positions = pd.read_csv(POSITIONS)
    calibration = pd.read_csv(CALIBRATION)
    by_position = _figure("Loss by position in a block", "position", "loss (nats per token)")
    by_position.line(positions["position"], positions["loss"])
    honest = _figure("Right as often as sure?", "probability of the likeliest token", "share right")
    honest.line([0, 1], [0, 1], color="#999999", dash="dashed")
    honest.scatter(
        calibration["confidence"],
        calibration["accuracy"],
        size=4 + 30 * calibration["share"] ** 0.5,
    )
    rate = _figure("Learning rate", "step", "learning rate")
    rate.line(train["step"], train["learning_rate"])
    norm = _figure("Gradient norm before clipping", "step", "norm")
    norm.line(train["step"], train["grad_norm"])
    clip = one.params.resolved()[1].grad_clip
    if clip:
        norm.add_layout(Span(location=clip, dimension="width", line_dash="dashed"))
    return {
        "loss": loss,
        "rate": rate,
        "norm": norm,
        "positions": by_position,
        "calibration": honest,
    }


def _figure(title: str, x: str, y: str, height: int = HEIGHT) -> Any:
    made = figure(
        title=title,
        x_axis_label=x,
        y_axis_label=y,
        height=height,
        sizing_mode="stretch_width",
        tools="pan,box_zoom,reset,save",
        active_drag=None,  # or a finger on a phone could not scroll past
    )
    made.toolbar_location = "above"
    made.toolbar.logo = None
    made.add_tools(HoverTool(tooltips=[(x, "$x{0.[00]}"), (y, "$y{0.000}")]))
    return made


@app.command("report")
def write_report(
    prompt: Annotated[
        str | None, typer.Option(help="Whose attention is shown; else the first sample's.")
    ] = None,
) -> None:
    """One self-contained page of the present result: report.html, readable without a network."""
    with at_root():
        write(prompt=prompt)
    print(f"{PAGE}: open it in a browser")
