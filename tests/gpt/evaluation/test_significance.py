"""Better, worse or noise: verdicts on figures whose answer is known."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trial_repository import TrialRepository
from typer.testing import CliRunner

from commands.cli import app
from commands.compare import table_of, text_of
from gpt.evaluation.significance import compare, compute_multiplier, mean_multiplier

# --- verdicts -------------------------------------------------------------------------------------


def runs(mean: float, spread: float, seeds: range, draw: int = 0) -> dict[int, float]:
    noise = np.random.default_rng(draw).normal(size=100)
    return {seed: mean + spread * float(noise[seed]) for seed in seeds}


def test_a_planted_gain_is_better_and_the_other_way_round_worse() -> None:
    base, gain = runs(1.10, 0.005, range(3)), runs(1.05, 0.005, range(3), draw=1)
    assert compare(base, gain).word == "better"
    assert compare(gain, base).word == "worse"
    assert compare(base, gain).test == "paired"


def test_the_same_recipe_twice_is_noise_nineteen_times_in_twenty() -> None:
    words = [
        compare(runs(1.1, 0.01, range(0, 4), draw), runs(1.1, 0.01, range(4, 8), draw)).word
        for draw in range(200)
    ]
    # 5 % of 200 is 10; Welch's test keeps its level within chance.
    assert 185 <= words.count("within noise") <= 198


def test_equal_seeds_are_paired_and_so_find_what_luck_would_hide() -> None:
    base = runs(1.10, 0.05, range(5))
    gain = {seed: value - 0.01 - 0.0001 * seed for seed, value in base.items()}
    assert compare(base, gain).word == "better"
    unpaired = {seed + 10: value for seed, value in gain.items()}
    assert compare(base, unpaired).word == "within noise"
    assert compare(base, unpaired).test == "welch"


def test_a_paired_t_test_is_that_of_the_textbook() -> None:
    # Differences 1, 2, 3: mean 2, deviation 1, t = 2 sqrt(3) = 3.464 at 2 degrees, p = 0.0742.
    found = compare({1: 1.0, 2: 1.0, 3: 1.0}, {1: 2.0, 2: 3.0, 3: 4.0})
    assert found.difference == pytest.approx(2.0)
    assert found.p == pytest.approx(0.0742, abs=1e-4)
    assert found.high == pytest.approx(2 + 4.3027 / 3**0.5, abs=1e-3)
    assert found.word == "within noise"


def test_one_seed_tells_nothing_of_noise() -> None:
    found = compare({1: 1.1}, {1: 1.0})
    assert (found.word, found.p) == ("unknown", None)
    assert found.difference == pytest.approx(-0.1)


def test_equal_results_are_noise_and_equal_gains_are_not() -> None:
    assert compare({1: 1.0, 2: 2.0}, {1: 1.0, 2: 2.0}).word == "within noise"
    assert compare({1: 1.0, 2: 2.0}, {1: 0.5, 2: 1.5}).word == "better"


# --- compute --------------------------------------------------------------------------------------


def test_a_run_that_learns_in_half_the_compute_has_a_multiplier_of_two() -> None:
    slow = [(0.0, 4.0), (100.0, 3.0), (200.0, 2.5)]
    fast = [(compute / 2, loss) for compute, loss in slow]
    assert compute_multiplier(slow, fast) == pytest.approx(2)
    assert compute_multiplier(fast, slow) == pytest.approx(0.5)
    assert mean_multiplier([slow, slow], [fast, slow]) == pytest.approx(2**0.5)


def test_the_multiplier_is_taken_at_the_lowest_loss_that_both_reach() -> None:
    base = [(0.0, 4.0), (100.0, 3.0)]
    better = [(0.0, 4.0), (50.0, 3.5), (100.0, 2.5)]  # reaches 3.0 between its looks, at 75
    assert compute_multiplier(base, better) == pytest.approx(100 / 75)


def test_a_run_that_never_learns_has_no_multiplier() -> None:
    assert compute_multiplier([(0.0, 4.0), (10.0, 4.1)], [(0.0, 4.0), (10.0, 3.0)]) is None
    assert compute_multiplier([], [(0.0, 4.0)]) is None


# --- the command ----------------------------------------------------------------------------------


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
    done = subprocess.run(
        ["git", *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def add_experiment(trial: TrialRepository, name: str, figure: float, **params: Any) -> None:
    """Commits results as DVC commits an experiment."""
    trial.set(**params)
    trial.write("metrics/evaluate.json", json.dumps({"val": {"bits_per_byte": figure}}))
    trial.write("metrics/train.json", json.dumps({"tokens": 400, "parameters": 1000}))
    git("add", "params.yaml", "metrics")
    git("commit", "--quiet", "--message", name)
    commit = git("rev-parse", "HEAD")
    git("update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/{name}", commit)


def test_seeds_are_gathered_and_settings_told_apart(trial: TrialRepository) -> None:
    text = (trial.folder / "params.yaml").read_text(encoding="utf-8")
    for name, figure, layers, seed in (
        ("base-1", 1.10, "", 1),
        ("wide-1", 1.00, "6", 1),
        ("base-2", 1.12, "", 2),
        ("wide-2", 1.01, "6", 2),
        ("base-3", 1.11, "", 3),
        ("wide-3", 1.02, "6", 3),
    ):
        changed = text.replace("\nseed: 1 ", f"\nseed: {seed} ")
        trial.write("params.yaml", changed)
        add_experiment(trial, name, figure, n_layer=layers)
    base, wide = table_of(["base-1", "wide-1", "base-2", "wide-2", "base-3", "wide-3"])
    assert base.group.by_seed() == {1: 1.10, 2: 1.12, 3: 1.11}
    assert wide.changes == "n_layer=6"
    assert wide.verdict is not None
    assert (wide.verdict.word, wide.verdict.test) == ("better", "paired")
    assert wide.multiplier == pytest.approx(0.5, abs=0.1)  # as fast, and nearly twice the layers
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


def test_an_unknown_name_and_missing_results_are_told_in_a_line(trial: TrialRepository) -> None:
    add_experiment(trial, "one", 1.1)
    for name, wanted in (("onne", "known: workspace, one"), ("--", "compare")):
        shown = CliRunner().invoke(app, ["compare", "one", name])
        assert wanted in shown.output
    (trial.folder / "metrics/evaluate.json").unlink()
    shown = CliRunner().invoke(app, ["compare", "workspace"])
    assert shown.exit_code == 2
    assert "workspace: its metrics are not there or not whole" in shown.output


def test_other_texts_are_not_compared(trial: TrialRepository) -> None:
    add_experiment(trial, "one", 1.1)
    add_experiment(trial, "two", 1.0, corpus="shakespeare")
    shown = CliRunner().invoke(app, ["compare", "one", "two"])
    assert shown.exit_code == 2
    assert "two: its corpus is shakespeare" in shown.output


def test_the_table_stands_in_columns(trial: TrialRepository) -> None:
    add_experiment(trial, "one", 1.1)
    lines = text_of(table_of(["one"])).splitlines()
    assert lines[0].index("verdict") == lines[1].index("compared with")
