"""`gpt result`: the present result in a few lines: a sample, the score, what to try next.

`make run` ends with it. Reads metrics/, params.yaml, dvc.lock and what git has of them, and imports
no large library, so that it answers at once.
"""

import json
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import typer

from commands.root import at_root, complete_metrics
from gpt.errors import DataError, GptError
from gpt.files import read_json, sha256_of
from repro import repository
from repro.lockfile import read_yaml
from repro.params import value_at
from repro.repository import Commit, WorkingFolder, git
from stages.params import (
    BASELINES,
    CORPUS,
    EVALUATE_METRICS,
    MODEL,
    PREPARE_METRICS,
    SAMPLES_PAGE,
    TOKENS,
    load,
)

app = typer.Typer(add_completion=False)


@app.command("result")
def print_result() -> None:
    """The present result in a few lines: a sample, its score, what to try next."""
    with at_root():
        kind, rule = load().tokenizer.kind, "-" * 80
        with complete_metrics():
            paragraphs = [score(read_json(EVALUATE_METRICS), read_json(PREPARE_METRICS), kind)]
            if verdict := same_bits():
                paragraphs.append(verdict)
        if warning := replaced_weights():
            paragraphs.append(warning)
        paragraphs += [f"All scores: {EVALUATE_METRICS}   All texts: {SAMPLES_PAGE}"]
        print(rule, first_sample(), rule, sep="\n")
        print(*(textwrap.fill(text, 80, break_on_hyphens=False) for text in paragraphs), sep="\n\n")
        print(f"\n{next_steps()}")


def first_sample() -> str:
    """The first text of metrics/samples.md, whose control characters are spelled out there."""
    files = WorkingFolder()
    fenced = re.search(
        r"^(`{3,})\n(.*?)\n\1$", (files.read(SAMPLES_PAGE.as_posix()) or b"").decode(), re.M | re.S
    )
    if fenced is None:
        raise DataError(f"{SAMPLES_PAGE}: has no sample; make it: dvc repro")
    return fenced[2]


def score(metrics: dict[str, Any], prepare: dict[str, Any], tokenizer: str) -> str:
    """What the model's loss means, for somebody who has never met one."""
    val, baselines = metrics["val"], metrics[BASELINES]
    per_character = prepare["val"]["bytes"] / prepare["val"]["characters"]
    unit = "character" if tokenizer == "char" else "token"
    sentence = (
        f"On text it has never seen, the model needs {val['bits_per_byte'] * per_character:.2f} "
        f"bits per character; predicting each {unit} by its frequency alone needs "
        f"{baselines['ngram_1'] * per_character:.2f}, gzip {baselines['gzip'] * per_character:.2f}"
    )
    if "floor_bits_per_byte" in val:
        floor = val["floor_bits_per_byte"] * per_character
        sentence += f", and no model can need less than {floor:.2f}"
    return sentence + "."


def same_bits() -> str:
    """Whether the committed results came out again; "" where git has none of these params."""
    committed, present = Commit("HEAD"), WorkingFolder()
    then, now = (read_yaml(files, "dvc.lock").get("stages") or {} for files in (committed, present))
    outputs_then, outputs_now = outputs(then), outputs(now)
    scores = [files.read(EVALUATE_METRICS.as_posix()) for files in (committed, present)]
    if None in scores or not then or recipe(then) != recipe(now):
        return ""
    different = [path for path, md5 in outputs_now.items() if md5 != outputs_then.get(path)]
    if not different:
        return "Every result came out as committed, bit for bit."
    for path in (CORPUS.as_posix(), TOKENS.as_posix()):
        if path in different:
            return (
                f"{path} differs from the committed one, and should be the same on every machine; "
                "please report it (docs/reproduce.md)."
            )
    there, here = (json.loads(score or b"")["val"]["bits_per_byte"] for score in scores)
    return (
        "Another processor, thread count or PyTorch build made the committed results, and rounds "
        f"otherwise, so that your model differs from theirs ({there:.4f} bits per byte there, "
        f"{here:.4f} here): `git status` shows dvc.lock and metrics/ as changed, since they now "
        'describe yours; commit them (git commit -am "Results of my machine"), or leave them so.'
    )


def replaced_weights() -> str:
    """What DVC does not see: another file at the path of train.init_from than the model began from.

    "" where it is the same, or not here.
    """
    try:
        config = read_json(MODEL / "config.json")
        init_from, before = value_at(config, "train.init_from"), config.get("pretrained_sha256")
        if not init_from or not before:
            return ""
        from gpt.interop.pretrained import HUGGING_FACE, pretrained_file  # imports PyTorch

        if init_from in HUGGING_FACE:
            return ""
        file = pretrained_file(init_from, repository.root(), Path(), None)
    except GptError:
        return ""
    replaced = f"{file} was replaced after the training (train.init_from): dvc repro -f train"
    return "" if sha256_of(file) == before else replaced


def outputs(stages: dict[str, Any]) -> dict[str, str]:
    """The hash of each output in dvc.lock."""
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs") or []}


def recipe(stages: dict[str, Any]) -> dict[str, Any]:
    """What each stage in dvc.lock was made from, without what other stages made."""
    made = outputs(stages)
    return {
        name: [
            stage["cmd"],
            stage.get("params"),
            [dep for dep in stage.get("deps") or [] if dep["path"] not in made],
        ]
        for name, stage in stages.items()
    }


def next_steps() -> str:
    """Three things to try, as commands that work here."""
    lines = ["Next:"]
    if Path(sys.prefix).parent == Path.cwd() and "VIRTUAL_ENV" not in os.environ:
        folder = Path(sys.prefix).name
        windows = os.name == "nt"
        activate = rf"{folder}\Scripts\activate" if windows else f"source {folder}/bin/activate"
        lines.append(f"  {activate:<42} # once in each terminal")
    if git("rev-parse", "HEAD"):
        vary, what = "dvc exp run -S model.n_layer=1", "a smaller model; then: gpt compare"
    else:  # an experiment is a commit
        vary, what = "dvc repro", "after an edit of params.yaml"
    for command, comment in (
        ("gpt sample --temperature 1.2", "more text, and bolder; 0.5: safer"),
        (vary, what),
        ("gpt ui", "curves and figures of every run, in a browser"),
    ):
        lines.append(f"  {command:<42} # {comment}")
    return "\n".join(lines)
