"""gpt compare: experiments by setting, with verdicts from their seeds."""

import json
import os
import subprocess
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from trial_repository import TrialRepository
from typer.testing import CliRunner

from commands.cli import app
from commands.compare import table_of, text_of
from commands.experiments import read

SECONDS = count(1_800_000_000)


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialRepository:
    repository = TrialRepository(tmp_path / "repository")
    monkeypatch.chdir(repository.folder)
    git("init", "--quiet")
    for stage in ("tokenize", "train", "evaluate"):
        repository.results(stage)
    return repository


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    # Experiments are listed in the order of their commits, which may fall into one second.
    env = os.environ | {"GIT_COMMITTER_DATE": f"{next(SECONDS)} +0000"}
    done = subprocess.run(
        ["git", *identity, *arguments], check=True, capture_output=True, text=True, env=env
    )
    return done.stdout.strip()


def add_experiment(trial: TrialRepository, name: str, score: float, **params: Any) -> None:
    """Commits results as DVC commits an experiment."""
    trial.set(**params)
    trial.write("metrics/evaluate.json", json.dumps({"val": {"bits_per_byte": score}}))
    trial.write("metrics/train.json", json.dumps({"tokens": 400, "parameters": 1000}))
    git("add", "params.yaml", "metrics")
    git("commit", "--quiet", "--message", name)
    commit = git("rev-parse", "HEAD")
    git("update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/{name}", commit)


def test_runs_are_grouped_by_setting_and_compared_by_seed(trial: TrialRepository) -> None:
    text = (trial.folder / "params.yaml").read_text(encoding="utf-8")
    for name, score, layers, seed in (
        ("base-1", 1.10, "", 1),
        ("wide-1", 1.00, "6", 1),
        ("base-2", 1.12, "", 2),
        ("wide-2", 1.01, "6", 2),
        ("base-3", 1.11, "", 3),
        ("wide-3", 1.02, "6", 3),
    ):
        changed = text.replace("\nseed: 1 ", f"\nseed: {seed} ")
        trial.write("params.yaml", changed)
        add_experiment(trial, name, score, n_layer=layers)
    names = ["base-1", "wide-1", "base-2", "wide-2", "base-3", "wide-3"]
    base, wide = table_of([read(name) for name in names])
    assert base.group.by_seed() == {1: 1.10, 2: 1.12, 3: 1.11}
    assert wide.changes == "n_layer=6"
    assert wide.verdict is not None
    assert (wide.verdict.word, wide.verdict.test) == ("better", "paired")
    assert wide.multiplier == pytest.approx(
        0.5, abs=0.1
    )  # the same curve with nearly twice the layers
    shown = CliRunner().invoke(app, ["compare", "base-1", "wide-1", "base-2", "wide-2", "wide-3"])
    assert shown.exit_code == 0
    assert "base-1 and 1 more" in shown.output
    assert "better" in shown.output


def test_without_names_all_experiments_are_compared(trial: TrialRepository) -> None:
    add_experiment(trial, "one", 1.1)
    add_experiment(trial, "two", 1.0, n_layer=2)
    shown = CliRunner().invoke(app, ["compare"])
    assert shown.exit_code == 0, shown.output
    # The working folder holds what `two` does.
    assert [line.split()[0] for line in shown.output.splitlines()[1:3]] == ["workspace", "one"]
    assert "unknown" in shown.output


def lines_of(*words: str) -> list[str]:
    shown = CliRunner().invoke(app, ["compare", *words])
    assert shown.exit_code == 0, shown.output
    return shown.output.splitlines()


def test_without_names_each_text_has_a_table_and_what_cannot_be_read_is_counted(
    trial: TrialRepository,
) -> None:
    add_experiment(trial, "one", 1.1)
    add_experiment(trial, "other-text", 1.0, corpus="shakespeare")
    add_experiment(trial, "older", 1.0, corpus="an-older-one")
    add_experiment(trial, "not-a-number", float("nan"), corpus="verse")
    trial.write("metrics/curves/train.csv", "step,train_loss\n1,2.5\n")
    add_experiment(trial, "no-curve", 1.0)
    lines = lines_of()
    assert [line.split()[0] for line in lines if "base" in line] == ["one", "other-text"]
    assert lines[0] == "verse, data.seed 0:"
    assert lines[-2] == (
        "left out, without readable results: 4 (workspace, older, not-a-number, no-curve)"
    )
    assert CliRunner().invoke(app, lines[-1].split()[2:]).exit_code == 2


def test_a_text_that_was_edited_under_its_path_is_another_one(trial: TrialRepository) -> None:
    trial.set(corpus="own")
    for name, size, score in (("before", 100, 1.1), ("after", 101, 1.0)):
        val = {"bytes": size, "characters": size}
        trial.write("metrics/prepare.json", json.dumps({"val": val}))
        add_experiment(trial, name, score)
    tables = [line for line in lines_of() if line.startswith(("before", "workspace"))]
    assert [line.split()[1] for line in tables] == ["1", "1"]
    shown = CliRunner().invoke(app, ["compare", "before", "after"])
    assert shown.exit_code == 2
    assert "after: its validation text is own, data/own, 101 bytes" in shown.output


def test_a_seed_that_came_out_otherwise_is_not_dropped(trial: TrialRepository) -> None:
    add_experiment(trial, "before", 1.1)
    add_experiment(trial, "after", 1.0)
    first, second = table_of([read(name) for name in ("before", "after")])
    assert first.group.by_seed() == {1: 1.1}
    assert second.group.by_seed() == {1: 1.0}
    assert second.changes == "the same params, another result"


def test_an_unknown_name_and_missing_results_are_errors_of_one_line(trial: TrialRepository) -> None:
    add_experiment(trial, "one", 1.1)
    shown = CliRunner().invoke(app, ["compare", "one", "onne"])
    assert shown.exit_code == 2
    assert "known: workspace, one" in shown.output
    (trial.folder / "metrics/evaluate.json").unlink()
    shown = CliRunner().invoke(app, ["compare", "workspace"])
    assert shown.exit_code == 2
    assert "workspace: its metrics are missing or incomplete" in shown.output


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "before: has no params.yaml; name an experiment of this project"),
        ("- a\n", "before: params.yaml: holds no sections"),
    ],
)
def test_a_commit_without_params_is_named_without_a_command_that_cannot_work(
    trial: TrialRepository, text: str | None, expected: str
) -> None:
    params = Path("params.yaml").read_bytes()
    Path("params.yaml").unlink()
    if text:
        trial.write("params.yaml", text)
    git("add", "--all")
    git("commit", "--quiet", "--message", "before")
    git("tag", "before")
    Path("params.yaml").write_bytes(params)
    shown = CliRunner().invoke(app, ["compare", "before"])
    assert (shown.exit_code, shown.output) == (2, f"gpt: {expected}\n")


def test_another_corpus_is_not_compared(trial: TrialRepository) -> None:
    add_experiment(trial, "one", 1.1)
    add_experiment(trial, "two", 1.0, corpus="shakespeare")
    shown = CliRunner().invoke(app, ["compare", "one", "two"])
    assert shown.exit_code == 2
    assert "two: its validation text is shakespeare, data.seed 0" in shown.output


def test_the_table_is_aligned_in_columns(trial: TrialRepository) -> None:
    add_experiment(trial, "one", 1.1)
    lines = text_of(table_of([read("one")])).splitlines()
    assert lines[0].index("verdict") == lines[1].index("base")


def test_minimal_pairs_have_a_column_where_results_have_them(trial: TrialRepository) -> None:
    add_experiment(trial, "before", 1.1)
    add_experiment(trial, "after", 1.0, n_layer=2)
    assert "pairs" not in CliRunner().invoke(app, ["compare"]).output
    metrics = {"val": {"bits_per_byte": 0.9}, "minimal_pairs": {"turns": 0.5, "words": 1.0}}
    trial.write("metrics/evaluate.json", json.dumps(metrics))
    heads, *lines = text_of(table_of([read(name) for name in ("before", "workspace")])).split("\n")
    end = heads.index("pairs") + len("pairs")
    assert [line[end - 5 : end] for line in lines] == ["     ", "0.750"]
