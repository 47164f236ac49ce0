"""`gpt compare`: experiments side by side, with a verdict from their seeds."""

import json
import statistics
from dataclasses import dataclass
from typing import Annotated

import typer

from commands.experiments import Experiment, read, read_all
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

    def pair_accuracy(self) -> float | None:
        """Of minimal pairs, the mean over rules and seeds; None where a run has none."""
        means = [run.pair_accuracy for run in self.runs]
        known = [mean for mean in means if mean is not None]
        return statistics.fmean(known) if known and len(known) == len(means) else None


@dataclass(frozen=True)
class Line:
    """A line of the table: a group, and how it compares with the first one."""

    group: Group
    changes: str = ""
    verdict: Verdict | None = None
    multiplier: float | None = None


def groups_of(experiments: list[Experiment]) -> list[Group]:
    """The experiments grouped by setting, in the order of their first runs."""
    groups: list[tuple[str, Group]] = []
    for experiment in experiments:
        setting = json.dumps([experiment.setting(), experiment.text], sort_keys=True)
        seed, score = experiment.params.seed, experiment.bits_per_byte
        for group_setting, group in groups:
            # The working folder is often one of the experiments: a seed counts once. With another
            # score it is another result, of other code or another machine.
            if group_setting == setting and group.by_seed().get(seed, score) == score:
                if seed not in group.by_seed():
                    group.runs.append(experiment)
                break
        else:
            groups.append((setting, Group([experiment])))
    return [group for _, group in groups]


def by_text(experiments: list[Experiment]) -> dict[str, list[Experiment]]:
    """The experiments of each validation text, in the order of their first ones."""
    texts: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        texts.setdefault(experiment.text, []).append(experiment)
    return texts


def table_of(experiments: list[Experiment]) -> list[Line]:
    """One line per setting; the first is the base of the comparison. Raises ParamsError."""
    base, *candidates = groups_of(experiments)
    setting = base.runs[0].setting()
    lines = [Line(base)]
    for group in candidates:
        first = group.runs[0]
        changed = {k: value for k, value in first.setting().items() if value != setting[k]}
        if first.text != base.runs[0].text:
            raise ParamsError(
                f"{first.name}: its validation text is {first.text}, that of {base.runs[0].name} "
                f"{base.runs[0].text}; bits per byte compare on one text only"
            )
        multiplier = None
        # Curves are in nats per token, so they compare only where the tokens are the same.
        if not any(key.startswith(("data.", "tokenizer.")) for key in changed):
            multiplier = mean_multiplier(
                [run.learning() for run in base.runs], [run.learning() for run in group.runs]
            )
        changes = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in changed.items())
        changes = changes or "the same params, another result"
        lines.append(Line(group, changes, compare(base.by_seed(), group.by_seed()), multiplier))
    return lines


HEADS = ["experiment", "seeds", "bits/byte", "+-", "pairs", "difference", "p", "compute", "verdict"]
PAIRS = HEADS.index("pairs")  # left out where no experiment has it


def text_of(lines: list[Line]) -> str:
    """The table for a terminal."""
    table = [HEADS, *(_cells(line) for line in lines)]
    if not any(cells[PAIRS] for cells in table[1:]):
        table = [cells[:PAIRS] + cells[PAIRS + 1 :] for cells in table]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    text = [
        "  ".join(
            cell.ljust(width) if i in (0, len(cells) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in table
    ]
    for i, line in enumerate(lines, start=1):
        if line.changes:
            text[i] += f"  ({line.changes})"
    return "\n".join(text)


def notes_on(tables: list[list[Line]]) -> list[str]:
    """What the columns of the tables mean, and what would help."""
    notes = ["compute: times less than the first needs, for the lowest loss that both reach"]
    words = {line.verdict.word for lines in tables for line in lines if line.verdict}
    if any(line.group.pair_accuracy() is not None for lines in tables for line in lines):
        notes.append(
            "pairs: of a right and a wrong line, in how many the right one is more likely "
            "(chance: 0.5), mean over the rules of a play"
        )
    if "unknown" in words:
        notes.append(
            "unknown: a verdict takes two seeds or more, "
            "dvc exp run --queue -S seed=1,2,3 -S ... && dvc queue start"
        )
    return notes


def _cells(line: Line) -> list[str]:
    scores = list(line.group.by_seed().values())
    more = f" and {len(scores) - 1} more" if len(scores) > 1 else ""
    stdev = f"{statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
    name = line.group.runs[0].name + more
    accuracy = line.group.pair_accuracy()
    pairs = "" if accuracy is None else f"{accuracy:.3f}"
    cells = [name, str(len(scores)), f"{statistics.fmean(scores):.4f}", stdev, pairs]
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
    """Which is better, beyond the noise of seeds? Without names: all that have results."""
    with at_root():
        if experiments:
            tables, unreadable = {"": table_of([read(name) for name in experiments])}, list[str]()
        else:
            finished, unreadable = read_all()
            tables = {text: table_of(group) for text, group in by_text(finished).items()}
        if not tables:
            raise ParamsError("no experiment has results; run one: dvc repro, or dvc exp run")
        for text, lines in tables.items():
            print(*([f"{text}:"] if len(tables) > 1 else ()), text_of(lines), "", sep="\n")
        print(*notes_on(list(tables.values())), sep="\n")
        if unreadable:
            some = ", ".join(unreadable[:4]) + ", ..." * (len(unreadable) > 4)
            print(f"left out, without readable results: {len(unreadable)} ({some})")
            print(f"why: gpt compare {unreadable[0]}")
