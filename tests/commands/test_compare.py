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
from commands.compare import experiments_of, table_of, text_of

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
    base, wide = table_of(
        experiments_of(["base-1", "wide-1", "base-2", "wide-2", "base-3", "wide-3"])
    )
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


def test_without_names_other_corpora_and_failed_experiments_are_left_out(
    trial: TrialRepository,
) -> None:
    add_experiment(trial, "one", 1.1)
    add_experiment(trial, "other-text", 1.0, corpus="shakespeare")
    trial.set(corpus="verse")
    (trial.folder / "metrics/train.json").unlink()
    git("add", "--all")
    git("commit", "--quiet", "--message", "failed")
    git("update-ref", "refs/exps/ab/cd/failed", "HEAD")
    shown = CliRunner().invoke(app, ["compare"])
    assert shown.exit_code == 0, shown.output
    assert "one" in shown.output.splitlines()[1]
    assert "other-text" not in shown.output
    assert "failed" not in shown.output


def test_an_unknown_name_and_missing_results_are_errors_of_one_line(trial: TrialRepository) -> None:
    add_experiment(trial, "one", 1.1)
    shown = CliRunner().invoke(app, ["compare", "one", "onne"])
    assert shown.exit_code == 2
    assert "known: workspace, one" in shown.output
    (trial.folder / "metrics/evaluate.json").unlink()
    shown = CliRunner().invoke(app, ["compare", "workspace"])
    assert shown.exit_code == 2
    assert "workspace: its metrics are missing or incomplete" in shown.output


def test_another_corpus_is_not_compared(trial: TrialRepository) -> None:
    add_experiment(trial, "one", 1.1)
    add_experiment(trial, "two", 1.0, corpus="shakespeare")
    shown = CliRunner().invoke(app, ["compare", "one", "two"])
    assert shown.exit_code == 2
    assert "two: its corpus is shakespeare" in shown.output


def test_the_table_is_aligned_in_columns(trial: TrialRepository) -> None:
    add_experiment(trial, "one", 1.1)
    lines = text_of(table_of(experiments_of(["one"]))).splitlines()
    assert lines[0].index("verdict") == lines[1].index("base")
