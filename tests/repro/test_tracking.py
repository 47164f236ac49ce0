"""Tracking: every run is complete, and whatever breaks, the stage goes on.

The runs are read back through MLflow's client. One empty database is made for the session and
copied, since making one takes seconds.
"""

import hashlib
import json
import logging
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from trial_repository import CURVE, LOOKS, REPOSITORY, STAGES, TrialRepository

from gpt.errors import TrainingError
from repro.errors import Interrupted
from repro.repository import WorkingFolder, folder_md5
from repro.tracking import run as tracking
from repro.tracking import stage_run, store
from repro.tracking.backfill import backfill_runs, end_dead_runs
from repro.tracking.contents import params_of_run
from stages.params import PROJECT, load

# What MLflow and SQLAlchemy tell each other is not ours; in a stage nobody sees it either.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    store.quiet_mlflow()
    store.make_database(database)
    return database


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> TrialRepository:
    repository = TrialRepository(tmp_path / "repository")
    monkeypatch.chdir(repository.folder)
    shutil.copyfile(empty_database, repository.folder / "mlflow.db")
    return repository


def open_store() -> store.Store:
    return store.Store(PROJECT)


def runs() -> list[Any]:
    """All runs of MLflow, the newest first."""
    return open_store().search("", limit=50)


def curve_of(run: Any, name: str) -> list[tuple[int, float]]:
    history = open_store().client.get_metric_history(run.info.run_id, name)
    return sorted((metric.step, metric.value) for metric in history)


def artifacts_of(run: Any) -> set[str]:
    return {found.path for found in open_store().client.list_artifacts(run.info.run_id)}


def states_of(run: Any) -> dict[str, str]:
    return {stage: run.data.tags.get(f"stage.{stage}") for stage in STAGES}


# --- what a run holds -----------------------------------------------------------------------------


def test_a_run_of_the_pipeline_is_one_run_with_all_params_and_metrics(
    trial: TrialRepository,
) -> None:
    trial.run_all()
    (run,) = runs()
    assert run.data.params == params_of_run(load())
    assert run.data.params["model.n_layer"] == "3"
    metrics = run.data.metrics
    assert metrics["prepare/train/bytes"] == 6
    assert metrics["train/best_val_loss"] == 3.7
    assert metrics["evaluate/val/bits_per_byte"] == 5.3
    assert {f"time/{stage}_s" for stage in STAGES} < set(metrics)
    assert metrics["time/tokens_per_second"] == 1234.0
    assert states_of(run) == dict.fromkeys(STAGES, "done")
    assert run.info.status == "FINISHED"


def test_a_run_holds_the_samples_the_pictures_and_what_defines_it(trial: TrialRepository) -> None:
    trial.run_all()
    (run,) = runs()
    wanted = {"samples.md", "samples.json", "pictures", "params.yaml", "dvc.yaml", "dvc.lock"}
    assert wanted <= artifacts_of(run)
    table = open_store().client.load_table(open_store().experiment, "samples.json")
    assert list(table["text"]) == ["Thou art."]
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "verse"
    assert dataset.dataset.digest == WorkingFolder().md5("data/corpus")


def test_a_curve_filled_in_from_the_file_is_the_curve_that_was_sent(
    trial: TrialRepository,
) -> None:
    trial.run_all()
    trial.set(num_samples=2)
    trial.run("sample")
    newest, first = runs()
    for name in ("train/loss", "train/learning_rate", "train/grad_norm", "train/val_loss"):
        assert curve_of(newest, name) == curve_of(first, name), name
    assert curve_of(newest, "train/loss") == [(step, loss) for step, loss, _, _ in CURVE]
    assert curve_of(newest, "train/val_loss") == [(0, 4.2), *LOOKS.items()]


def test_a_change_of_sample_alone_makes_a_complete_run(trial: TrialRepository) -> None:
    trial.run_all()
    trial.set(num_samples=2)
    trial.run("sample")
    newest, first = runs()
    assert states_of(newest) == dict.fromkeys(STAGES, "reused") | {"sample": "done"}
    assert newest.data.params["sample.num_samples"] == "2"
    times = {"time/prepare_s", "time/tokenize_s", "time/train_s", "time/tokens_per_second"}
    for name, value in first.data.metrics.items():
        if name in times or not name.startswith("time/"):
            assert newest.data.metrics[name] == value, name
    assert artifacts_of(newest) == artifacts_of(first)


def test_a_stage_that_comes_out_as_before_completes_the_run_with_what_dvc_skips(
    trial: TrialRepository,
) -> None:
    trial.run_all()
    with Path("stages/tokenize.py").open("a", encoding="utf-8") as code:
        code.write("# a comment\n")
    trial.run("tokenize")
    newest, _ = runs()
    assert states_of(newest) == dict.fromkeys(STAGES, "reused") | {"tokenize": "done"}
    assert "evaluate/val/loss" in newest.data.metrics
    assert newest.info.status == "FINISHED"


def test_a_stage_that_comes_out_otherwise_leaves_what_follows_to_run(
    trial: TrialRepository,
) -> None:
    trial.run_all()
    trial.set(seed=2, steps=9)
    trial.model = "other weights"
    trial.run("train")
    newest, _ = runs()
    assert states_of(newest)["evaluate"] is None
    assert "evaluate/val/loss" not in newest.data.metrics
    trial.run("evaluate")
    assert "evaluate/val/loss" in runs()[0].data.metrics
    assert len(runs()) == 2


def test_stale_results_are_never_filled_in(trial: TrialRepository) -> None:
    trial.run_all()
    trial.write("metrics/evaluate.json", json.dumps({"val": {"loss": 0.0}}))
    trial.set(num_samples=2)
    trial.run("sample")
    assert states_of(runs()[0])["evaluate"] is None


def test_own_text_that_changed_makes_what_stands_on_it_invalid(trial: TrialRepository) -> None:
    trial.run_all()
    trial.write("data/own/text.txt", "Another text.\n")
    trial.set(num_samples=2)
    trial.run("sample")
    assert set(states_of(runs()[0]).values()) == {None, "done"}


def test_folder_hash_is_that_of_dvc() -> None:
    # From dvc.lock, of a folder with a.txt ("a\n") and sub/b.txt ("b\n").
    files = [
        ("sub/b.txt", "3b5d5c3712955042212316173ccf37be"),
        ("a.txt", "60b725f10c9c85c70d97880dfe8191b3"),
    ]
    assert folder_md5(files) == "849835d274483dc683eb416d6e4f887d.dir"


# --- which run ------------------------------------------------------------------------------------


def test_running_a_done_stage_again_makes_a_new_run(trial: TrialRepository) -> None:
    trial.run_all()
    trial.run("train")
    assert len(runs()) == 2


def test_forced_stages_of_one_execution_share_a_run(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.run_all()
    monkeypatch.setattr(stage_run, "execution_id", lambda: "another dvc")
    trial.run_all()
    newest, _ = runs()
    assert states_of(newest) == dict.fromkeys(STAGES, "done")


def test_experiments_have_runs_of_their_own(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.run_all()
    monkeypatch.setenv("DVC_EXP_NAME", "brave-owl")
    trial.run("sample")
    newest, _ = runs()
    assert newest.info.run_name == "brave-owl"
    assert newest.data.tags["dvc.exp_name"] == "brave-owl"


def test_clones_that_run_the_same_at_the_same_time_have_runs_of_their_own(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{trial.folder}/mlflow.db")
    other = TrialRepository(tmp_path / "other clone")
    for stage in STAGES:
        trial.run(stage)
        monkeypatch.chdir(other.folder)
        other.run(stage)
        monkeypatch.chdir(trial.folder)
    assert [states_of(run) for run in runs()] == [dict.fromkeys(STAGES, "done")] * 2


def test_a_run_is_kept_in_the_main_repository_from_a_temporary_copy(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = TrialRepository(trial.folder / ".dvc/tmp/exps/copy")
    monkeypatch.setenv("DVC_ROOT", str(trial.folder))
    monkeypatch.chdir(copy.folder)
    copy.run("prepare")
    (run,) = runs()
    assert run.info.artifact_uri.startswith((trial.folder / "mlartifacts").as_uri())
    assert not (copy.folder / "mlflow.db").exists()


def test_a_relative_database_is_meant_from_the_root(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    monkeypatch.chdir("data")
    assert store.store_uri() == f"sqlite:///{trial.folder}/other.db"


def test_a_folder_that_is_missing_is_made(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///not/yet/here/mlflow.db")
    trial.run("prepare")
    assert (trial.folder / "not/yet/here/mlflow.db").is_file()
    assert len(runs()) == 1


# --- stopped and resumed --------------------------------------------------------------------------


def test_a_resumed_training_goes_on_in_its_run_without_doubled_steps(
    trial: TrialRepository,
) -> None:
    def stopped(run: tracking.Run) -> None:
        trial.send_curve(run, 1, 25)
        raise Interrupted("stopped by SIGTERM")

    def resumed(run: tracking.Run) -> None:
        trial.send_curve(run, 21, 40)  # the last saved state was at step 20

    with pytest.raises(Interrupted):
        trial.run("train", stopped)
    (run,) = runs()
    assert (run.info.status, states_of(run)["train"]) == ("KILLED", "interrupted")
    trial.run("train", resumed)
    (run,) = runs()
    assert curve_of(run, "train/loss") == [(step, loss) for step, loss, _, _ in CURVE]
    assert (run.info.status, states_of(run)["train"]) == ("FINISHED", "done")


def test_a_stopped_training_under_other_code_starts_a_new_run(trial: TrialRepository) -> None:
    def stopped(run: tracking.Run) -> None:
        raise Interrupted("stopped by SIGTERM")

    with pytest.raises(Interrupted):
        trial.run("train", stopped)
    trial.write("gpt/trainer.py", "# other code\n")
    trial.run("train")
    assert len(runs()) == 2


@pytest.mark.parametrize(
    ("error", "state", "status"),
    [
        (TrainingError("loss is not finite"), "failed", "FAILED"),
        (KeyError("a fault of ours"), "failed", "FAILED"),
        (KeyboardInterrupt(), "interrupted", "KILLED"),
    ],
)
def test_what_a_stage_raises_passes_through_and_the_run_says_so(
    trial: TrialRepository, error: BaseException, state: str, status: str
) -> None:
    def fails(run: tracking.Run) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        trial.run("train", fails)
    assert caught.value is error
    (run,) = runs()
    assert (states_of(run)["train"], run.info.status) == (state, status)


# --- whatever breaks, the stage goes on -----------------------------------------------------------


def runs_with_one_warning(
    trial: TrialRepository, capsys: pytest.CaptureFixture[str], *words: str
) -> None:
    """The train stage completes, its results are there, and stderr holds one line with `words`."""
    trial.run("train")
    assert Path("metrics/curves/train.csv").is_file()
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("tracking: ")
    assert any(word in line for word in words), line


def locked(database: Path) -> sqlite3.Connection:
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    return other


@pytest.mark.fault(13, planted=planted.TRACKING_STOPS_THE_STAGE)
def test_a_locked_database(
    trial: TrialRepository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.2)
    other = locked(trial.folder / "mlflow.db")
    runs_with_one_warning(trial, capsys, "database is locked")
    other.close()


@pytest.mark.fault(13, planted=planted.TRACKING_STOPS_THE_STAGE)
def test_a_database_that_is_locked_while_training(
    trial: TrialRepository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.run("prepare")
    trial.run("tokenize")
    monkeypatch.setattr(store, "PATIENCE", 0.2)
    monkeypatch.setattr(tracking, "SEND_AFTER_POINTS", 10)

    def body(run: tracking.Run) -> None:
        other = locked(trial.folder / "mlflow.db")
        trial.send_curve(run)
        other.close()

    trial.run("train", body)
    (line,) = capsys.readouterr().err.splitlines()
    assert "database is locked" in line
    trial.run("evaluate")
    (run,) = runs()
    assert curve_of(run, "train/loss") == [(step, loss) for step, loss, _, _ in CURVE]
    assert states_of(run)["train"] == "done"


@pytest.mark.fault(13, planted=planted.TRACKING_STOPS_THE_STAGE)
def test_a_database_that_goes_missing_while_training(
    trial: TrialRepository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "SEND_AFTER_POINTS", 10)

    def body(run: tracking.Run) -> None:
        (trial.folder / "mlflow.db").unlink()
        trial.send_curve(run)

    trial.run("train", body)
    (line,) = capsys.readouterr().err.splitlines()
    assert "mlflow.db: unable to open database file" in line
    assert Path("metrics/curves/train.csv").is_file()
    assert not (trial.folder / "mlflow.db").exists(), "the next stage makes a whole one"


@pytest.mark.fault(13, planted=planted.TRACKING_STOPS_THE_STAGE)
def test_a_read_only_database(
    trial: TrialRepository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Read-only by SQLite's own word, since root may write to any file.
    uri = f"sqlite:///file:{trial.folder}/mlflow.db?mode=ro&uri=true"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    runs_with_one_warning(trial, capsys, "readonly")


@pytest.mark.fault(13, planted=planted.TRACKING_STOPS_THE_STAGE)
@pytest.mark.parametrize("damage", ["garbage", "truncated"])
def test_a_corrupt_database(
    trial: TrialRepository, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    database = trial.folder / "mlflow.db"
    content = database.read_bytes()
    database.write_bytes(b"not a database " * 999 if damage == "garbage" else content[:50_000])
    runs_with_one_warning(trial, capsys, "not a database", "malformed")


@pytest.mark.fault(13, planted=planted.TRACKING_STOPS_THE_STAGE)
def test_a_folder_that_cannot_be_made(
    trial: TrialRepository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///params.yaml/mlflow.db")
    runs_with_one_warning(trial, capsys, "params.yaml")


@pytest.mark.fault(13, planted=planted.TRACKING_STOPS_THE_STAGE)
def test_a_full_disk(trial: TrialRepository, capsys: pytest.CaptureFixture[str]) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def body(run: tracking.Run) -> None:
        size = (trial.folder / "mlflow.db").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            for step in range(3000):
                run.log_metrics({"train/loss": 1.0}, step=step)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    trial.run("train", body)
    (line,) = capsys.readouterr().err.splitlines()
    assert "disk" in line


@pytest.mark.fault(13, planted=planted.TRACKING_STOPS_THE_STAGE)
@pytest.mark.loopback
def test_a_server_that_is_not_there(
    trial: TrialRepository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:secret@127.0.0.1:9")
    trial.run("train")
    assert Path("metrics/curves/train.csv").is_file()
    # Nothing of the password that the address may hold.
    assert capsys.readouterr().err == (
        "tracking: MLFLOW_TRACKING_URI http://127.0.0.1:9 does not answer; "
        "the stage continues untracked\n"
    )


@pytest.mark.fault(13, planted=planted.TRACKING_STOPS_THE_STAGE)
def test_mlflow_is_not_installed(
    trial: TrialRepository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    runs_with_one_warning(trial, capsys, "mlflow is not installed")


def python(code: str, **environment: str) -> "subprocess.Popen[str]":
    """A Python of its own, as a stage is."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


ENTER = """
from repro.tracking import run as tracking
from stages.params import PROJECT, load
with tracking.stage(PROJECT, "prepare", load()):
    pass
"""


@pytest.mark.fault(12)
@pytest.mark.slow
def test_two_processes_on_a_fresh_store_both_succeed(trial: TrialRepository) -> None:
    (trial.folder / "mlflow.db").unlink()
    both = [python(ENTER, DVC_EXP_NAME=name) for name in ("one", "two")]
    assert [process.communicate()[0] for process in both] == ["", ""]
    assert sorted(run.info.run_name for run in runs()) == ["one", "two"]


# --- what tracking must not do --------------------------------------------------------------------


def test_tracking_that_is_off_imports_no_mlflow(trial: TrialRepository) -> None:
    trial.set(tracking="false")
    process = python(ENTER + "import sys; print('mlflow' in sys.modules)")
    assert process.communicate()[0] == "False\n"
    assert runs() == []


@pytest.mark.fault(25, planted=planted.ENVIRONMENT_RECORDED)
def test_no_value_of_the_environment_gets_into_the_store(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("SECRET", "AWS_SECRET_ACCESS_KEY", "USER", "LOGNAME", "MLFLOW_RUN_TAGS", "PS1")
    for name in names:
        monkeypatch.setenv(name, f"canary-{name}")
    trial.run_all()
    kept = [file for file in trial.folder.rglob("*") if file.is_file()]
    assert len(kept) > 10
    assert not [file for file in kept if b"canary-" in file.read_bytes()]


def test_tracking_changes_no_global_state(trial: TrialRepository) -> None:
    def state() -> dict[str, Any]:
        return {
            "random": random.getstate(),
            "numpy": np.random.get_state()[1].tolist(),  # type: ignore[union-attr]
            "handlers": list(logging.getLogger().handlers),
            "level": logging.getLogger().level,
            "signals": [signal.getsignal(number) for number in signal.valid_signals()],
            "folder": Path.cwd(),
        }

    before = state()
    trial.run("train")
    assert state() == before


def test_a_process_in_which_mlflow_talks_hears_nothing_of_it_in_a_stage(
    trial: TrialRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    open_store()  # MLflow is imported by now
    logging.getLogger("mlflow").setLevel(logging.INFO)
    trial.run("train")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stage", ["train", "sample"])
def test_a_run_that_is_off_takes_everything(trial: TrialRepository, stage: str) -> None:
    trial.set(tracking="false")
    seen: list[tracking.Run] = []

    def body(run: tracking.Run) -> None:
        run.log_metrics({"train/loss": 1.0}, step=1)
        run.log_text("text", "samples/x.txt")
        seen.append(run)

    trial.run(stage, body)
    assert seen


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
    other = TrialRepository(tmp_path / "other clone")
    monkeypatch.chdir(other.folder)
    stage_run.StageRun(PROJECT, "prepare", load())  # the same params, and not done
    monkeypatch.chdir(trial.folder)
    assert backfill_runs(PROJECT, open_store()) == 1
    (theirs,) = (run for run in runs() if run.info.status == "RUNNING")
    assert states_of(theirs) == dict.fromkeys(STAGES) | {"prepare": "running"}


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
        nonlocal other
        other = locked(trial.folder / "mlflow.db")
        trial.results("sample")

    other: sqlite3.Connection | None = None
    trial.run("sample", body)
    assert other is not None
    other.close()
    assert "database is locked" in capsys.readouterr().err
    keep_as_experiment("calm-fox")
    trial.set(num_samples=7)  # the working folder has moved on
    (run,) = runs()
    assert backfill_runs(PROJECT, open_store()) == 1  # of the working folder
    (run,) = (other for other in runs() if other.info.run_id == run.info.run_id)
    assert run.data.metrics["sample/samples"] == 1
    assert (states_of(run)["sample"], run.info.status) == ("done", "FINISHED")


def test_a_run_whose_process_was_killed_no_longer_says_running(trial: TrialRepository) -> None:
    opened = stage_run.StageRun(PROJECT, "prepare", load())
    opened.run.replace({}, {"execution": "1-0.00"})
    end_dead_runs(open_store())
    assert runs()[0].info.status == "KILLED"
