"""Makes docs/workshop.ipynb, the course as one notebook, from its pages.

    python -m workshop.notebook          # and docs/colab.ipynb, the cell of README

Prose becomes text cells. A block of Python becomes a code cell: a piece of one of the learner's
files with %%piece, an example without its prompts and answers. A command becomes a cell with `!`,
unless it needs a terminal, an answer, gigabytes or somebody else's files: those stay in the text. A
cell may be run again, so one that names an experiment removes that name first. Runs nothing.
"""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent / "docs"
NOTEBOOK = DOCS / "workshop.ipynb"
COLAB = DOCS / "colab.ipynb"
PAGES = (
    "1-tokenization",
    "2-transformer",
    "3-training",
    "4-generation",
    "5-pipeline",
    "6-competition",
)
IN_A_TERMINAL = re.compile(
    r"make |source |dvc queue |dvc exp run --queue|gpt compare|gpt leaderboard|.*=tinystories"
)

INTRODUCTION = """\
# Train your own GPT: the course as a notebook

The pages of the [course](index.md), to be run from top to bottom. A cell that begins with
`%%piece` defines something here and keeps it as a part of your file in `scratchpad/`, which
`gpt workshop check` and the pipeline read: change it, run it again, and check. A command that
stands in the text and not in a cell wants a terminal.

Made from the pages by `python -m workshop.notebook`; what you change here does not reach them.
"""
# Finds the repository on this machine or, in Colab, clones it.
SETTING_UP = """\
import os
import sys
from pathlib import Path

address = ""  # in Colab: the address of your copy of the repository
if address:
    !git clone -q "{address}" repro-gpt
    os.chdir("repro-gpt")
    !pip install -q -e .
if Path.cwd().name == "docs":
    os.chdir("..")
assert Path("dvc.yaml").exists(), f"{Path.cwd()} is not the repository: give its address above"
# Commands are those beside the Python that runs this.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
%load_ext workshop.cells"""

Cell = tuple[str, str]  # "markdown" or "code", and its source


def cells_of(page: str) -> Iterator[Cell]:
    """Splits a page into the cells of the notebook, in order."""
    text: list[str] = []
    number = 0
    for kind, block in _blocks(page):
        source = None
        if kind == "command":
            command = block.strip()
            if not IN_A_TERMINAL.match(command):
                source = "!" + command
                if named := re.match(r"dvc exp run .*--name (\S+)", command):
                    # --quiet: no error for an experiment that does not exist yet.
                    source = f"!dvc exp remove --quiet {named[1]}\n{source}"
        elif kind == "python":
            opening, _, code = block.partition("\n")
            if file := re.search(r'title="(.*)"', opening):
                number += 1
                source = f"%%piece {file[1]} {number}\n{code}"
            else:
                source = without_answers(code)
        if source is None:
            text.append(block)
            continue
        if joined := "\n".join(text).strip("\n"):
            yield "markdown", joined
        text = []
        yield "code", source
    if joined := "\n".join(text).strip("\n"):
        yield "markdown", joined


def _blocks(page: str) -> Iterator[Cell]:
    """Splits a page into blocks of "python" with their opening line, "command"s, "text" lines."""
    lines = iter(page.splitlines())
    blank = True
    in_commands = False
    for line in lines:
        if line.startswith("```python"):
            code = [line]
            for inner in lines:
                if inner == "```":
                    break
                code.append(inner)
            yield "python", "\n".join(code)
        elif re.match(r" {4}\S", line) and (blank or in_commands):
            in_commands = True
            while line.endswith("\\"):
                line += "\n" + next(lines)
            yield "command", line
            continue
        elif not line.startswith("Next: "):
            yield "text", line
        blank = not line
        in_commands = False


def without_answers(example: str) -> str:
    """Extracts the code of a `>>>` example."""
    lines = [line for line in example.splitlines() if line.startswith((">>>", "..."))]
    return "\n".join(line[4:] for line in lines)


def make_notebook() -> str:
    """Makes the content of docs/workshop.ipynb: no outputs, and the same cell ids each time."""
    cells: list[tuple[str, Cell]] = [
        ("introduction", ("markdown", INTRODUCTION.strip())),
        ("setting-up", ("code", SETTING_UP)),
    ]
    for name in PAGES:
        page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
        cells += [(f"{name}-{number}", cell) for number, cell in enumerate(cells_of(page), 1)]
    return _as_notebook(cells)


def make_colab() -> str:
    """Makes the content of docs/colab.ipynb: the cell of README, on a GPU."""
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    section = readme.partition("\n## In Colab\n")[2].partition("\n## ")[0]
    cell = "\n".join(re.findall(r"^ {4}(.*)$", section, re.M))
    return _as_notebook([("train", ("code", cell))], accelerator="GPU")


def _as_notebook(cells: list[tuple[str, Cell]], **metadata: str) -> str:
    notebook = {
        "cells": [as_json(name, *cell) for name, cell in cells],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            **metadata,
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def as_json(name: str, kind: str, source: str) -> dict[str, Any]:
    """A cell in the format of notebooks (nbformat 4.5)."""
    cell = {"cell_type": kind, "id": name, "metadata": {}, "source": source.splitlines(True)}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def main() -> None:
    description = (__doc__ or "").splitlines()[0]
    argparse.ArgumentParser("python -m workshop.notebook", description=description).parse_args()
    NOTEBOOK.write_text(make_notebook(), encoding="utf-8", newline="\n")
    COLAB.write_text(make_colab(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
