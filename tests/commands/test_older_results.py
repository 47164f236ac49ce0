"""What version 0.1.0 wrote can still be read; what it had and this version has not is named."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from trial_repository import REPOSITORY, TrialRepository
from typer.testing import CliRunner

from commands import experiments
from commands.cli import app
from commands.lineage import params_of
from commands.model_run import generate_candidates
from commands.submission import read
from gpt.checkpoint import load_model
from gpt.generation import Sampling, generate
from repro.tracking.backfill import backfill_runs
from repro.tracking.store import Store
from stages import params

FIXTURES = REPOSITORY / "tests/fixtures/version_0_1"
MODELS = ("model_gpt2", "model_modern", "model_original", "model_bpe")


@pytest.fixture(autouse=True)
def _nothing_is_named_yet() -> None:
    params._tell_unknown.cache_clear()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_its_logits_and_its_text(name: str, one_thread: None) -> None:
    trained = load_model(FIXTURES / name)
    expected = json.loads((FIXTURES / name / "logits.json").read_bytes())
    with torch.inference_mode():
        logits_btv = trained.model(torch.tensor([expected["ids"]]))
    # They were written with six digits.
    torch.testing.assert_close(logits_btv[0], torch.tensor(expected["logits"]), rtol=0, atol=5e-6)
    greedy = expected["greedy"]
    sampling = Sampling(max_new_tokens=greedy["max_new_tokens"], temperature=0)
    (sample,) = generate(trained.model, trained.tokenizer, greedy["prompt"], sampling, seed=1)
    assert (sample.text, sample.stop_reason) == (greedy["text"], greedy["stop_reason"])


def test_a_submission_is_read_and_its_candidates_are_generated_again() -> None:
    folder = FIXTURES / "submission"
    submission = read(folder)
    trained = load_model(folder / "data/model")
    texts = generate_candidates(trained, submission.decoding, len(submission.candidates))
    assert texts == submission.candidates


def test_verify_names_the_commit_of_a_submission_made_by_other_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(REPOSITORY)
    done = CliRunner().invoke(app, ["verify", str(FIXTURES / "submission")])
    assert done.exit_code == 2, done.output
    assert "was another version than here; check out the commit it was made with" in done.output
    assert read(FIXTURES / "submission").commit in done.output
    assert len(done.output.splitlines()) == 1


def test_keys_that_are_gone_are_named_once_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    read_twice = [params_of(FIXTURES / "submission") for _ in range(2)]
    assert read_twice[0].data.verse_bytes == 30_000
    (line,) = capsys.readouterr().err.splitlines()
    assert "tokenizer.min_frequency" in line
    assert line.endswith(": in params of an earlier version, and left out")


def test_a_key_that_was_not_there_yet_has_the_committed_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(REPOSITORY)
    text = (FIXTURES / "experiment/params.yaml").read_text(encoding="utf-8")
    older = "".join(line for line in text.splitlines(keepends=True) if "  top_p:" not in line)
    assert older != text
    assert params.parse_older(older).sample.top_p == params.load().sample.top_p


def test_the_users_own_params_are_still_held_to_the_schema() -> None:
    text = (FIXTURES / "experiment/params.yaml").read_text(encoding="utf-8")
    with pytest.raises(params.ParamsError, match=r"is not a key"):
        params.parse(text)


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(
        ["git", *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an experiment of version 0.1.0, in a repository of today."""
    trial = TrialRepository(tmp_path / "repository")
    monkeypatch.chdir(trial.folder)
    git("init", "--quiet")
    git("add", "params.yaml", "dvc.yaml")
    git("commit", "--quiet", "--message", "today")
    today = git("rev-parse", "HEAD")
    shutil.copytree(FIXTURES / "experiment", trial.folder, dirs_exist_ok=True)
    git("add", "params.yaml", "dvc.yaml", "dvc.lock", "metrics")
    git("commit", "--quiet", "--message", "an experiment")
    commit = git("rev-parse", "HEAD")
    git("update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/old-owl", commit)
    git("reset", "--quiet", "--hard", today)
    return "old-owl"


def test_an_experiment_is_read_with_its_scores(experiment: str) -> None:
    older = experiments.read(experiment)
    metrics = json.loads((FIXTURES / "experiment/metrics/evaluate.json").read_bytes())
    assert older.bits_per_byte == metrics["val"]["bits_per_byte"]
    assert older.params.resolved()[0].n_embd == 16
    assert older.learning()[-1][1] == older.curve["val_loss"].dropna().iloc[-1]


def test_an_experiment_is_compared(experiment: str) -> None:
    done = CliRunner().invoke(app, ["compare", experiment, experiment])
    assert done.exit_code == 0, done.output
    assert f"{experiments.read(experiment).bits_per_byte:.4f}" in done.output


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_experiment_is_backfilled_and_a_run_of_its_own_version_is_not_doubled(
    experiment: str, empty_database: Path
) -> None:
    shutil.copyfile(empty_database, "mlflow.db")
    store = Store(params.PROJECT)
    assert backfill_runs(params.PROJECT, store) == 1
    (run,) = store.search("", limit=9)
    assert run.info.run_name == experiment
    train = experiments.read(experiment).train
    assert run.data.metrics["train/best_val_loss"] == train["best_val_loss"]
    # Version 0.1.0 hashed other params into its key.
    store.client.set_tag(run.info.run_id, "pipeline.key", f"{experiment}:of another version")
    assert backfill_runs(params.PROJECT, store) == 0
