"""`gpt compare`: experiments side by side, with a verdict from their seeds."""

import json
import statistics
from dataclasses import dataclass
from typing import Annotated

import typer

from commands.experiments import Experiment, read, read_finished
from commands.root import at_root
from gpt.errors import ParamsError
from gpt.evaluation.significance import Verdict, compare, mean_multiplier

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Group:
    """Runs of one setting, which differ by their seeds."""

    runs: list[Experiment]

    def by_seed(self) -> dict[int, float]:
        return {run.params.seed: run.bits_per_byte for run in self.runs}


@dataclass(frozen=True)
class Line:
    """A line of the table: a group, and how it compares with the first one."""

    group: Group
    changes: str = ""
    verdict: Verdict | None = None
    multiplier: float | None = None


def groups_of(experiments: list[Experiment]) -> list[Group]:
    """The experiments grouped by setting, in the order of their first runs."""
    groups: dict[str, Group] = {}
    for experiment in experiments:
        setting = json.dumps(experiment.setting(), sort_keys=True)
        group = groups.setdefault(setting, Group([]))
        # The working folder is often one of the experiments: a seed counts once.
        if experiment.params.seed not in group.by_seed():
            group.runs.append(experiment)
    return list(groups.values())


def experiments_of(names: list[str]) -> list[Experiment]:
    """The experiments `names`, or all that are finished and of the first one's corpus.

    Raises ParamsError for a name that cannot be read, or if nothing is finished.
    """
    if names:
        return [read(name) for name in names]
    finished = read_finished()
    if not finished:
        raise ParamsError("no experiment has results; run one: dvc repro, or dvc exp run")
    corpus = finished[0].params.data.corpus
    return [experiment for experiment in finished if experiment.params.data.corpus == corpus]


def table_of(experiments: list[Experiment]) -> list[Line]:
    """One line per setting; the first is the base of the comparison. Raises ParamsError."""
    base, *candidates = groups_of(experiments)
    setting = base.runs[0].setting()
    lines = [Line(base)]
    for group in candidates:
        theirs = group.runs[0].setting()
        changed = {key: value for key, value in theirs.items() if value != setting[key]}
        if "data.corpus" in changed:
            raise ParamsError(
                f"{group.runs[0].name}: its corpus is {changed['data.corpus']}, that of "
                f"{base.runs[0].name} {setting['data.corpus']}; bits per byte compare on one "
                "corpus only"
            )
        multiplier = None
        # Curves are in nats per token, so they compare only where the tokens are the same.
        if not any(key.startswith(("data.", "tokenizer.")) for key in changed):
            multiplier = mean_multiplier(
                [run.learning() for run in base.runs], [run.learning() for run in group.runs]
            )
        changes = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in changed.items())
        lines.append(Line(group, changes, compare(base.by_seed(), group.by_seed()), multiplier))
    return lines


HEADS = ["experiment", "seeds", "bits/byte", "+-", "difference", "p", "compute", "verdict"]


def text_of(lines: list[Line]) -> str:
    """The table for a terminal."""
    table = [HEADS, *(_cells(line) for line in lines)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    text = [
        "  ".join(
            cell.ljust(width) if i in (0, len(HEADS) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in table
    ]
    for i, line in enumerate(lines, start=1):
        if line.changes:
            text[i] += f"  ({line.changes})"
    text += ["", "compute: times less than the first needs, for the lowest loss that both reach"]
    if any(cells[-1] == "unknown" for cells in table):
        text.append(
            "unknown: a verdict takes two seeds or more, "
            "dvc exp run --queue -S seed=1,2,3 -S ... && dvc queue start"
        )
    return "\n".join(text)


def _cells(line: Line) -> list[str]:
    scores = list(line.group.by_seed().values())
    more = f" and {len(scores) - 1} more" if len(scores) > 1 else ""
    stdev = f"{statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
    name = line.group.runs[0].name + more
    cells = [name, str(len(scores)), f"{statistics.fmean(scores):.4f}", stdev]
    if line.verdict is None:
        return [*cells, "", "", "", "base"]
    p = "" if line.verdict.p is None else f"{line.verdict.p:.3f} {line.verdict.test}"
    multiplier = "" if line.multiplier is None else f"{line.multiplier:.2f}x"
    return [*cells, f"{line.verdict.difference:+.4f}", p, multiplier, line.verdict.word]


@app.command("compare")
def compare_experiments(
    experiments: Annotated[
        list[str] | None,
        typer.Argument(help="Names, commits, or workspace; the first is the base."),
    ] = None,
) -> None:
    """Which is better, beyond the noise of seeds? Without names: all with results on one corpus."""
    with at_root():
        print(text_of(table_of(experiments_of(experiments or []))))
