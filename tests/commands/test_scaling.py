"""gpt scaling: a series that spends one budget, and a law through its losses."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from trial_repository import TrialRepository
from typer.testing import CliRunner

from commands.cli import app
from commands.plan import with_changes
from commands.scaling import queue_commands
from stages.params import load

SIZES = np.geomspace(1e4, 1e6, 6)


def law(x: float) -> float:
    return 0.6 + 30.0 * x**-0.35


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialRepository:
    repository = TrialRepository(tmp_path / "repository")
    monkeypatch.chdir(repository.folder)
    return repository


def test_a_series_by_budget_spends_the_same_compute(trial: TrialRepository) -> None:
    series = queue_commands([32, 64], [], 1e11, ["train.batch_size=4"])
    steps = []
    for command in series:
        changes = [word for word in command if "=" in word]
        _, train, _ = with_changes(changes).resolved()
        assert train.batch_size == 4
        steps.append(train.steps)
    assert [command[5] for command in series] == ["scale-embd-32", "scale-embd-64"]
    # Twice as wide: between two and four times the FLOPs per token.
    assert 2 < steps[0] / steps[1] < 4
    assert load().resolved()[1].batch_size == 8  # nothing was written


def test_a_series_that_cannot_be_built_is_refused(trial: TrialRepository) -> None:
    for words, message in (
        (["--widths", "33"], "not divisible"),
        (["--widths", "a,b"], "whole numbers"),
        ([], "give --widths or --depths"),
        (["--widths", "32", "--depths", "2"], "give --widths or --depths"),
    ):
        shown = CliRunner().invoke(app, ["scaling", "queue", *words])
        assert shown.exit_code == 2
        assert message in shown.output


def test_a_series_is_fitted_plotted_and_predicted(trial: TrialRepository) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.run(
            ["git", *identity, *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "--quiet")
    for stage in ("tokenize", "train"):
        trial.results(stage)
    for size in SIZES:
        val = {"loss": float(law(size)), "bits_per_byte": float(law(size)) / np.log(2)}
        val["floor_bits_per_byte"] = 0.6 / np.log(2)
        trial.write("metrics/evaluate.json", json.dumps({"val": val}))
        trial.write("metrics/train.json", json.dumps({"parameters": int(size), "tokens": 400}))
        git("add", "params.yaml", "metrics")
        git("commit", "--quiet", "--message", "a size")
        commit = git("rev-parse", "HEAD")
        git("update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/scale-{int(size)}", commit)
    shown = CliRunner().invoke(app, ["scaling", "fit", "--predict", "1e7"])
    assert shown.exit_code == 0, shown.output
    assert "loss = 0.6000 (known)" in shown.output
    assert f"at 1e+07 parameters: {law(1e7):.4f}" in shown.output
    assert Path("scaling.png").stat().st_size > 1000
    fitted = CliRunner().invoke(app, ["scaling", "fit", "--no-floor"])
    assert "(fitted)" in fitted.output
    wrong = CliRunner().invoke(app, ["scaling", "fit", "--over", "money"])
    assert (wrong.exit_code, "choose parameters" in wrong.output) == (2, True)
    trial.write("metrics/evaluate.json", json.dumps({"val": {"bits_per_byte": 1.5}}))
    lacking = CliRunner().invoke(app, ["scaling", "fit", "workspace"])
    assert lacking.output.startswith("gpt: metrics: a figure is missing or is no number ('loss')")
