"""`gpt ui` adds and completes the runs that no process tracked."""

import hashlib
import json
import shutil
import sqlite3
import subprocess
from pathlib import Path

import planted
import pytest
from tracked_runs import artifacts_of, curve_of, locked, open_store, runs, states_of
from trial_repository import CURVE, STAGES, TrialRepository

from repro.repository import WorkingFolder
from repro.tracking import run as tracking
from repro.tracking import stage_run, store
from repro.tracking.backfill import backfill_runs, end_dead_runs
from repro.tracking.contents import params_of_run
from stages.params import PROJECT, load

# What MLflow and SQLAlchemy tell each other is not ours; in a stage nobody sees it either.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


# --- gpt ui ---------------------------------------------------------------------------------------


def test_results_without_a_run_get_one(trial: TrialRepository) -> None:
    trial.set(tracking="false")
    trial.run_all()
    assert backfill_runs(PROJECT, open_store()) == 1
    (run,) = runs()
    assert states_of(run) == dict.fromkeys(STAGES, "reused")
    assert run.data.params == params_of_run(load())
    assert len(curve_of(run, "train/loss")) == len(CURVE)
    assert run.info.status == "FINISHED"
    assert backfill_runs(PROJECT, open_store()) == 0


def test_a_run_of_another_clone_that_still_trains_is_left_alone(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere.db")
    trial.run_all()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{trial.folder}/mlflow.db")
    clone = TrialRepository(tmp_path / "other clone")
    monkeypatch.chdir(clone.folder)
    stage_run.StageRun(PROJECT, "prepare", load())  # the same params, and not done
    monkeypatch.chdir(trial.folder)
    assert backfill_runs(PROJECT, open_store()) == 1
    (theirs,) = (run for run in runs() if run.info.status == "RUNNING")
    assert states_of(theirs) == dict.fromkeys(STAGES) | {"prepare": "running"}


def test_a_finished_run_that_never_got_its_params_gets_them(trial: TrialRepository) -> None:
    trial.run_all()
    with sqlite3.connect("mlflow.db") as database:
        database.execute("DELETE FROM params")
    database.close()
    assert backfill_runs(PROJECT, open_store()) == 0
    (run,) = runs()
    assert run.data.params == params_of_run(load())


def test_a_run_that_was_deleted_by_hand_stays_deleted(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "calm-fox")
    trial.run_all()
    keep_as_experiment("calm-fox")
    (run,) = runs()
    open_store().client.delete_run(run.info.run_id)
    assert backfill_runs(PROJECT, open_store()) == 0
    assert runs() == []
    open_store().client.restore_run(run.info.run_id)
    assert backfill_runs(PROJECT, open_store()) == 0
    assert [each.info.run_id for each in runs()] == [run.info.run_id]


def test_a_deleted_run_without_a_model_does_not_hide_the_results_that_came_later(
    trial: TrialRepository,
) -> None:
    trial.run("prepare")
    open_store().client.delete_run(runs()[0].info.run_id)
    trial.set(tracking="false")
    trial.run_all()
    assert backfill_runs(PROJECT, open_store()) == 1


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(
        ["git", *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def keep_as_experiment(name: str) -> None:
    """Commits the working folder as DVC does at the end of an experiment."""
    git("init", "--quiet")
    git(
        "add",
        "params.yaml",
        "dvc.yaml",
        "dvc.lock",
        "metrics",
        "gpt",
        "repro",
        "stages",
        "verse",
        "data/own",
    )
    git("commit", "--quiet", "--message", "an experiment")
    commit = git("rev-parse", "HEAD")
    git("update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/{name}", commit)


def test_experiments_without_a_run_get_one(trial: TrialRepository) -> None:
    trial.run_all()
    trial.set(num_samples=3, tracking="false")
    trial.run("sample")
    keep_as_experiment("calm-fox")
    trial.set(num_samples=5)
    trial.results("sample")
    trial.lock("sample")
    assert backfill_runs(PROJECT, open_store()) == 1
    run = next(run for run in runs() if run.info.run_name == "calm-fox")
    assert run.data.params["sample.num_samples"] == "3"
    assert "evaluate/val/loss" in run.data.metrics


@pytest.mark.slow
def test_the_samples_of_an_experiment_come_from_a_cache_that_a_team_shares(
    trial: TrialRepository, tmp_path: Path
) -> None:
    trial.set(tracking="false")
    trial.run_all()
    keep_as_experiment("calm-fox")
    trial.write(".dvc/config.local", f"[cache]\n    dir = {tmp_path}/shared\n")
    content = Path("data/samples/samples.jsonl").read_bytes()
    name = hashlib.md5(content, usedforsecurity=False).hexdigest()
    listed = json.dumps([{"md5": name, "relpath": "samples.jsonl"}]).encode()
    for md5, kept in ((name, content), (WorkingFolder().md5("data/samples"), listed)):
        file = tmp_path / "shared/files/md5" / md5[:2] / md5[2:]
        file.parent.mkdir(parents=True)
        file.write_bytes(kept)
    trial.set(num_samples=7)  # the working folder has moved on, and its samples with it
    shutil.rmtree("data/samples")
    assert backfill_runs(PROJECT, open_store()) > 0
    run = next(run for run in runs() if run.info.run_name == "calm-fox")
    assert "samples.json" in artifacts_of(run)


@pytest.mark.fault(13, planted=planted.LOST_STAGES_STAY_LOST)
def test_an_experiment_whose_last_stage_met_a_locked_database_is_completed(
    trial: TrialRepository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.2)
    monkeypatch.setenv("DVC_EXP_NAME", "calm-fox")
    for stage in STAGES[:-1]:
        trial.run(stage)

    def body(run: tracking.Run) -> None:
        nonlocal locking
        locking = locked(trial.folder / "mlflow.db")
        trial.results("sample")

    locking: sqlite3.Connection | None = None
    trial.run("sample", body)
    assert locking is not None
    locking.close()
    assert "database is locked" in capsys.readouterr().err
    keep_as_experiment("calm-fox")
    trial.set(num_samples=7)  # the working folder has moved on
    (run,) = runs()
    assert backfill_runs(PROJECT, open_store()) == 1  # of the working folder
    (run,) = (each for each in runs() if each.info.run_id == run.info.run_id)
    assert run.data.metrics["sample/samples"] == 1
    assert (states_of(run)["sample"], run.info.status) == ("done", "FINISHED")


def test_a_run_whose_process_was_killed_no_longer_says_running(trial: TrialRepository) -> None:
    opened = stage_run.StageRun(PROJECT, "prepare", load())
    opened.run.replace({}, {"execution": "1-0.00"})
    end_dead_runs(open_store())
    assert runs()[0].info.status == "KILLED"
