"""Whatever breaks in tracking, the stage continues; nothing is tracked that should not be."""

import io
import logging
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from tracked_runs import curve_of, locked, open_store, runs, states_of
from trial_repository import CURVE, REPOSITORY, TrialRepository

from repro.tracking import run as tracking
from repro.tracking import store

# What MLflow and SQLAlchemy tell each other is not ours; in a stage nobody sees it either.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


# --- whatever breaks, the stage continues ---------------------------------------------------------


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


@pytest.mark.fault(13, planted=planted.TRACKING_STOPS_THE_STAGE)
def test_a_locked_database(
    trial: TrialRepository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.2)
    locking = locked(trial.folder / "mlflow.db")
    runs_with_one_warning(trial, capsys, "database is locked")
    locking.close()


@pytest.mark.fault(13, planted=planted.TRACKING_STOPS_THE_STAGE)
def test_a_database_that_is_locked_while_training(
    trial: TrialRepository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.run("prepare")
    trial.run("tokenize")
    monkeypatch.setattr(store, "PATIENCE", 0.2)
    monkeypatch.setattr(tracking, "SEND_AFTER_POINTS", 10)

    def body(run: tracking.Run) -> None:
        locking = locked(trial.folder / "mlflow.db")
        trial.send_curve(run)
        locking.close()

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
    resource = pytest.importorskip("resource")  # Windows has none
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
    processes = [python(ENTER, DVC_EXP_NAME=name) for name in ("one", "two")]
    assert [process.communicate()[0] for process in processes] == ["", ""]
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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "expected"), [(Terminal, True), (io.StringIO, False)])
def test_a_terminal_says_why_the_stage_waits(
    trial: TrialRepository,
    monkeypatch: pytest.MonkeyPatch,
    stream: type[io.StringIO],
    expected: bool,
) -> None:
    trial.write("mlflow.db", "not a database")  # refused at once
    shown = stream()
    monkeypatch.setattr(sys, "stderr", shown)
    trial.run("prepare")
    assert ("opening MLflow" in shown.getvalue()) is expected


@pytest.mark.parametrize(
    ("module", "install"),
    [
        ("psycopg2", "pip install -c constraints.txt -e '.[team]'"),
        ("boto3.session", "pip install -c constraints.txt -e '.[team]'"),
        ("mlflow.tracking", "pip install mlflow"),
    ],
)
def test_a_package_that_the_store_lacks_is_named_with_how_to_install_it(
    module: str, install: str
) -> None:
    package = module.partition(".")[0]
    error = ModuleNotFoundError("no module", name=module)
    assert tracking.reason(error) == f"{package} is not installed; {install}"
