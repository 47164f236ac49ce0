"""`gpt compare`: experiments beside each other, with a verdict from their seeds."""

import statistics
from dataclasses import dataclass
from typing import Annotated

import typer

from commands.experiments import Experiment, names, read
from commands.root import at_root
from gpt.errors import ParamsError
from gpt.evaluation.significance import Verdict, compare, mean_multiplier

app = typer.Typer()


@dataclass(frozen=True)
class Group:
    """Runs that differ by their seed alone."""

    runs: list[Experiment]

    @property
    def name(self) -> str:
        more = f" and {len(self.runs) - 1} more" if len(self.runs) > 1 else ""
        return self.runs[0].name + more

    def by_seed(self) -> dict[int, float]:
        return {run.params.seed: run.bits_per_byte for run in self.runs}

    def mean(self) -> float:
        return statistics.fmean(self.by_seed().values())

    def deviation(self) -> float | None:
        values = list(self.by_seed().values())
        return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Line:
    """A row of the table: a group, and what it is beside the first one."""

    group: Group
    changes: str
    verdict: Verdict | None
    multiplier: float | None


def groups_of(experiments: list[Experiment]) -> list[Group]:
    """Experiments with equal settings together, in the order in which they were named."""
    found: list[Group] = []
    for one in experiments:
        for group in found:
            if group.runs[0].setting() == one.setting():
                # The working folder is often one of the experiments: the same seed counts once.
                if one.params.seed not in group.by_seed():
                    group.runs.append(one)
                break
        else:
            found.append(Group([one]))
    return found


def table_of(names: list[str]) -> list[Line]:
    """One line a setting; the first is what the others are compared with. Raises ParamsError."""
    groups = groups_of([read(name) for name in names])
    base = groups[0]
    corpus = base.runs[0].setting()["data.corpus"]
    lines = [Line(base, "", None, None)]
    for group in groups[1:]:
        setting, other = base.runs[0].setting(), group.runs[0].setting()
        if other["data.corpus"] != corpus:
            raise ParamsError(
                f"{group.runs[0].name}: its corpus is {other['data.corpus']}, and that of "
                f"{base.runs[0].name} {corpus}; bits per byte of two texts cannot be compared"
            )
        # Losses per token, and so curves, compare where the tokens are the same.
        same_tokens = all(
            setting[key] == other[key] for key in setting if key.startswith(("data.", "tokenizer."))
        )
        multiplier = None
        if same_tokens:
            multiplier = mean_multiplier(
                [run.learning() for run in base.runs], [run.learning() for run in group.runs]
            )
        changes = ", ".join(
            f"{key.rpartition('.')[2]}={other[key]}"
            for key in setting
            if setting[key] != other[key]
        )
        verdict = compare(base.by_seed(), group.by_seed())
        lines.append(Line(group, changes, verdict, multiplier))
    return lines


HEADS = ("experiment", "seeds", "bits/byte", "+-", "difference", "p", "compute", "verdict")


def text_of(lines: list[Line]) -> str:
    """The table for a terminal."""
    cells = [list(HEADS), *(_cells(line) for line in lines)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(HEADS))]
    rows = [
        "  ".join(
            cell.ljust(width) if i in (0, len(HEADS) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    for number, line in enumerate(lines):
        if line.changes:
            rows[number + 1] += f"  ({line.changes})"
    notes = ["", "compute: how many times less than the first for the lowest loss that both reach"]
    if any(line.verdict is not None and line.verdict.word == "unknown" for line in lines):
        notes.append(
            "unknown: noise is known from two seeds on, "
            "dvc exp run --queue -S seed=1,2,3 -S ... && dvc queue start"
        )
    return "\n".join(rows + notes)


def _cells(line: Line) -> list[str]:
    verdict, deviation = line.verdict, line.group.deviation()
    return [
        line.group.name,
        str(len(line.group.by_seed())),
        f"{line.group.mean():.4f}",
        "" if deviation is None else f"{deviation:.4f}",
        "" if verdict is None else f"{verdict.difference:+.4f}",
        "" if verdict is None or verdict.p is None else f"{verdict.p:.3f} {verdict.test}",
        "" if line.multiplier is None else f"{line.multiplier:.2f}x",
        "compared with" if verdict is None else verdict.word,
    ]


@app.command("compare")
def compare_experiments(
    experiments: Annotated[
        list[str] | None,
        typer.Argument(help="Names, commits, or workspace; others are compared with the first."),
    ] = None,
) -> None:
    """Which is better, beyond the noise of seeds? Without names: all of DVC's experiments."""
    with at_root():
        print(text_of(table_of(experiments or names())))
