"""The console command `gpt`: what is not a stage. It acts on the repository of the working folder.

    gpt ui                     fill in missing rows, then open MLflow's pages on 127.0.0.1
    gpt ui --no-serve          fill in only
    gpt compare EXP EXP ...    which experiment is better, beyond the noise of seeds
    gpt plan -S KEY=VALUE      what a training will take, before it is begun
    gpt scaling queue, fit     a series of sizes, and what the next size would reach
    gpt promote EXP            makes it MLflow's champion, if it is better beyond noise
    gpt report                 one page of the present result, report.html
    gpt submit                 a poem for a competition, with all that it came from
    gpt verify FILE            does a submission hold together? --retrain is the proof
    gpt leaderboard FOLDER     verifies the submissions in a folder and ranks them
    gpt benchmark TASK FILE    HellaSwag, LAMBADA, WikiText, enwik8 or text8, not trained for
    gpt export --to hf         the model for transformers, or llama.cpp (gguf)
    gpt workshop start, check  the files of the course to write yourself, and hints on them

A command that needs much to start imports it inside, so that `gpt --help` stays quick.
"""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from gpt.errors import GptError
from repro import repository
from repro.errors import UserError
from stages.params import MODEL, PROJECT
from workshop.cli import workshop

HOST = "127.0.0.1"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


scaling = typer.Typer(no_args_is_help=True, help="How the loss falls as models grow.")
app.add_typer(scaling, name="scaling")
app.add_typer(workshop, name="workshop")


@app.callback()
def gpt() -> None:
    """Train your own GPT: dvc repro runs the pipeline, gpt does what is not a stage."""


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Where to serve; 0 takes a free one.")] = 5000,
    serve: Annotated[bool, typer.Option(help="Open the pages, or only fill in rows.")] = True,
) -> None:
    """Compare runs: one row per experiment, in MLflow's own pages."""
    environment = dict(os.environ)
    try:
        os.chdir(repository.root())
    except (GptError, UserError) as error:
        _fail(str(error))
    # Before the seconds that MLflow takes.
    port = _free_port(port) if serve else port
    from repro.tracking.backfill import backfill_runs
    from repro.tracking.run import reason
    from repro.tracking.store import Store

    try:
        store = Store(PROJECT)
        added = backfill_runs(PROJECT, store)
    except Exception as error:
        _fail(f"the tracking store cannot be used: {reason(error)}")
    print(f"{added} {'run' if added == 1 else 'runs'} added")
    if not serve:
        return
    page = store.page()
    if store.uri.startswith(("http:", "https:")):
        print(f"served at {store.uri.rstrip('/')}{page}")
        return
    print(f"http://{HOST}:{port}{page}\nit takes a few seconds; Ctrl+C stops it", flush=True)
    _serve(store, port, environment)


@app.command("compare")
def compare_experiments(
    experiments: Annotated[
        list[str] | None,
        typer.Argument(help="Names, commits, or workspace; the first is what others are beside."),
    ] = None,
) -> None:
    """Which is better, beyond the noise of seeds? Without names: all of DVC's experiments."""
    from commands.compare import table_of, text_of
    from commands.experiments import names

    with _at_root():
        print(text_of(table_of(experiments or names())))


@app.command("plan")
def plan_training(
    changes: Annotated[
        list[str] | None, typer.Option("-S", "--set-param", help="KEY=VALUE, as for dvc exp run.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long to try; 0: arithmetic alone.")] = 8.0,
    price: Annotated[float, typer.Option(help="Of an hour of the machine.")] = 0.0,
) -> None:
    """Parameters, operations, memory and time of a training, before it is begun."""
    from commands.plan import plan, text_of, with_changes

    with _at_root():
        print(text_of(plan(with_changes(changes or []), seconds), price))


@scaling.command("queue")
def queue_series(
    widths: Annotated[str, typer.Option(help="Of model.n_embd, as in 32,64,128.")] = "",
    depths: Annotated[str, typer.Option(help="Of model.n_layer.")] = "",
    flops: Annotated[float, typer.Option(help="Operations that each may spend.")] = 0.0,
    changes: Annotated[
        list[str] | None, typer.Option("-S", "--set-param", help="KEY=VALUE for all of them.")
    ] = None,
) -> None:
    """Queue a series of sizes; `dvc queue start` runs it."""
    from commands.scaling import commands, queue

    with _at_root():
        series = commands(_numbers(widths), _numbers(depths), flops, changes or [])
        queue(series)
        print("\n".join(" ".join(command) for command in series))
        print(f"{len(series)} queued; dvc queue start, then gpt scaling fit")


@scaling.command("fit")
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
    from commands.scaling import PICTURE, floor_of, law_of, picture, series_of, text_of

    with _at_root():
        series = series_of(names or [])
        known = floor_of(series) if floor else None
        law = law_of(series, over, known)
        picture(PICTURE, series, over, law, predict or [])
        print(text_of(series, over, law, predict or [], known is not None))
        print(PICTURE)


def _numbers(text: str) -> list[int]:
    """32,64,128 as a list."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        _fail(f"{text}: write whole numbers with commas between, as in 32,64,128")


@app.command("promote")
def promote_champion(
    experiment: Annotated[
        str, typer.Argument(help="A name, a commit, or repository.")
    ] = "workspace",
) -> None:
    """Make an experiment MLflow's champion, if its seeds show it better beyond noise."""
    from commands.promote import ALIAS, promote

    with _at_root():
        done = promote(experiment)
        verdict = done.verdict
        if verdict is not None:
            sure = "" if verdict.p is None else f" (p = {verdict.p:.3f}, {verdict.test})"
            print(f"{verdict.difference:+.4f} bits per byte: {verdict.word}{sure}")
        if done.version is None:
            if verdict is not None and verdict.word == "unknown":
                print("noise is known from two seeds on: dvc exp run --queue -S seed=1,2,3 -S ...")
            print("not promoted: the champion stays")
            raise typer.Exit(1)
        print(f"promoted: models:/{done.name}@{ALIAS} is version {done.version}")


@app.command("report")
def write_report(
    prompt: Annotated[
        str | None, typer.Option(help="Whose attention is drawn; else the first sample's.")
    ] = None,
) -> None:
    """One self-contained page of the present result: report.html, readable without a network."""
    from commands.report import PAGE, write

    with _at_root():
        write(prompt=prompt)
    print(f"{PAGE}: open it in a browser")


@app.command("submit")
def submit_poem(
    author: Annotated[str, typer.Option(help="Who submits.")],
    prompt: Annotated[str | None, typer.Option(help="What the poem goes on from.")] = None,
    candidates: Annotated[int | None, typer.Option(help="How many are written.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Tokens of each.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0: the likeliest token.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same poems.")] = None,
    choose: Annotated[int | None, typer.Option(help="Which one; without it you are asked.")] = None,
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("submission"),
) -> None:
    """Write poems with the present model, choose one, and submit it; the rest as in params.yaml."""
    from commands.submission import NAME, submit
    from gpt.generation import printable
    from stages.params import SampleParams, check, load

    def ask(texts: list[str]) -> int:
        if choose is not None:
            return choose
        for index, text in enumerate(texts):
            print(f"--- {index}\n{printable(text)}")
        return int(typer.prompt("---\nWhich one", type=int))

    given = {
        "prompt": prompt,
        "num_samples": candidates,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "seed": seed,
    }
    out = out.resolve()
    with _at_root():
        values = {key: value for key, value in given.items() if value is not None}
        asked = check(SampleParams, "sample", {**load().sample.model_dump(), **values})
        made = submit(out, author, asked, ask)
        print(f"{printable(made.poem)}\n\n{out / NAME}: gpt verify checks it")


@app.command("verify")
def verify_submission(
    file: Annotated[Path, typer.Argument(help="submission.json, or the folder that holds it.")],
    retrain: Annotated[bool, typer.Option(help="Train the model again, and compare.")] = False,
) -> None:
    """Is a submission what it says it is?"""
    from commands.submission import NAME, verify

    file = file.resolve()
    folder = file.parent if file.name == NAME else file
    with _at_root():
        found = verify(folder)
        print(
            f"consistent: hashes, lineage and scores agree, and the model wrote the poem again, as "
            f"number {found.chosen} of {len(found.candidates)}, byte for byte"
        )
        if retrain:
            from commands.retraining import retrain as train_again

            print(train_again(folder))
        else:
            print("this is no proof that the weights were trained so; --retrain is, and trains")


@app.command("leaderboard")
def rank_submissions(
    folder: Annotated[Path, typer.Argument(help="It holds a folder for each submission.")],
) -> None:
    """Verify the submissions in a folder, and rank them by their stated scores."""
    from commands.submission import leaderboard, table

    folder = folder.resolve()
    with _at_root():
        print(table(*leaderboard(folder)))


class Task(StrEnum):
    """What a model can be tested on without having been trained for it."""

    hellaswag = "hellaswag"
    lambada = "lambada"
    wikitext_2 = "wikitext-2"
    wikitext_103 = "wikitext-103"
    ptb = "ptb"
    enwik8 = "enwik8"
    text8 = "text8"


@app.command("benchmark")
def benchmark(
    task: Annotated[Task, typer.Argument(help="Which test.")],
    file: Annotated[
        Path | None, typer.Argument(help="Its file, as published; else it is downloaded.")
    ] = None,
    model: Annotated[Path, typer.Option(help="A folder as the train stage writes it.")] = MODEL,
    limit: Annotated[int, typer.Option(help="Only the first so many questions; 0: all.")] = 0,
) -> None:
    """What the model knows that it was not trained for, as JSON: docs/scale.md has GPT-2's."""
    import json

    given = None if file is None else file.resolve()
    with _at_root():
        from commands.benchmark import run

        print(json.dumps(run(task.value, given, model, limit), indent=2))


class Layout(StrEnum):
    """Formats of `gpt export`."""

    hf = "hf"
    gguf = "gguf"


@app.command("export")
def export_model(
    to: Annotated[Layout, typer.Option(help="For transformers (hf) or llama.cpp (gguf).")],
    model: Annotated[Path, typer.Option(help="A folder as the train stage writes it.")] = MODEL,
    out: Annotated[Path | None, typer.Option(help="The folder to write; else export/LAYOUT.")] = (
        None
    ),
) -> None:
    """Write the trained model in the format of another project."""
    from commands.export import export

    folder = None if out is None else out.resolve()
    with _at_root():
        for file in export(to.value, model, folder):
            print(file)


@contextmanager
def _at_root() -> Iterator[None]:
    """In the repository's root, with the user's faults in one line."""
    try:
        os.chdir(repository.root())
        yield
    except (GptError, UserError) as error:
        _fail(str(error))


def _free_port(port: int) -> int:
    """The port, once nothing else listens there."""
    with socket.socket() as probe:
        # As the server itself does, so that a port just left by another does not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            _fail(f"port {port}: {getattr(error, 'strerror', error)}; try gpt ui --port {port + 1}")
        return int(probe.getsockname()[1])


def _serve(store: Any, port: int, environment: dict[str, str]) -> NoReturn:
    """Becomes MLflow's server, as light as it goes: 2 processes and 0.5 GB, not 15 and 1.8 GB."""
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    environment["MLFLOW_DISABLE_TELEMETRY"] = "true"
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.uri]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    sys.stdout.flush()
    os.execve(command[0], command, environment)  # noqa: S606 (our own Python, a fixed command)


def _fail(reason: str) -> NoReturn:
    print(f"gpt: {reason}", file=sys.stderr)
    raise typer.Exit(2)


if __name__ == "__main__":
    app()
