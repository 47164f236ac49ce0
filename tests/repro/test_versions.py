"""MLflow's databases of another version: upgraded after a copy, or named with what to do."""

import shutil
import sqlite3
import sys
from contextlib import closing
from importlib import metadata
from pathlib import Path

import pytest
from tracked_runs import open_store, runs, states_of
from trial_repository import TrialRepository

from repro.tracking import mlflow_internals, store
from repro.tracking.run import reason

# What MLflow and SQLAlchemy tell each other is not ours; in a stage nobody sees it either.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NEWER = "f00f00f00f00"


def older(releases: int = 3) -> str:
    return mlflow_internals.database_versions()[releases]


def set_version(database: Path, version: str) -> None:
    with closing(sqlite3.connect(database)) as opened, opened:
        opened.execute("UPDATE alembic_version SET version_num = ?", (version,))


def version_of(database: Path) -> str:
    with closing(sqlite3.connect(database)) as opened:
        return str(opened.execute(mlflow_internals.VERSION).fetchone()[0])


@pytest.mark.slow
def test_a_database_of_an_older_mlflow_is_upgraded_after_a_copy(
    trial: TrialRepository, capfd: pytest.CaptureFixture[str]
) -> None:
    from alembic import command
    from mlflow.store.db import utils
    from sqlalchemy import create_engine

    database, version = trial.folder / "mlflow.db", older(6)
    database.unlink()
    engine = create_engine(store.sqlite_uri(database))
    utils.InitialBase.metadata.create_all(engine)
    config = utils._get_alembic_config(str(engine.url))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)
        connection.exec_driver_sql(
            "INSERT INTO experiments (name, lifecycle_stage) VALUES ('kept', 'active')"
        )
    engine.dispose()
    assert version_of(database) == version
    trial.run("prepare")
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("tracking")]
    copy = Path(f"{database}.{version}")
    assert line == f"tracking: {database}: of an older MLflow, is upgraded; a copy: {copy}"
    assert version_of(copy) == version
    assert version_of(database) == mlflow_internals.database_versions()[0]
    assert open_store().client.get_experiment_by_name("kept") is not None
    assert states_of(runs()[0])["prepare"] == "done"


def test_an_upgrade_that_fails_names_the_copy(
    trial: TrialRepository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_version(trial.folder / "mlflow.db", older())
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    trial.run("prepare")
    copy = f"{trial.folder}/mlflow.db.{older()}"
    assert f"cannot be upgraded (); move it, its copy is {copy}; " in capsys.readouterr().err


def test_a_shared_database_of_an_older_mlflow_is_left_and_the_command_named(
    trial: TrialRepository,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = tmp_path / ("a long way " * 20) / "of ours.db"
    shared.parent.mkdir()
    shutil.move("mlflow.db", shared)
    set_version(shared, older())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared}")
    trial.run("prepare")
    assert capsys.readouterr().err == (
        f"tracking: {shared}: of an older MLflow than the {metadata.version('mlflow')} installed "
        f"here; copy it, then: mlflow db upgrade 'sqlite:///{shared}'; "
        "the stage continues untracked\n"
    )
    assert version_of(shared) == older()
    assert {file.name for file in shared.parent.iterdir()} == {"of ours.db", "of ours.db.lock"}


def test_a_database_of_a_newer_mlflow_is_left_and_called_so(
    trial: TrialRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    set_version(trial.folder / "mlflow.db", NEWER)
    trial.run("prepare")
    assert capsys.readouterr().err == (
        f"tracking: {trial.folder}/mlflow.db: of a newer MLflow than the "
        f"{metadata.version('mlflow')} installed here (its tables are of version {NEWER}); "
        "install that one, or name another store in MLFLOW_TRACKING_URI; "
        "the stage continues untracked\n"
    )
    assert version_of(trial.folder / "mlflow.db") == NEWER


@pytest.mark.parametrize("newer", [False, True])
def test_a_server_of_another_version_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, newer: bool
) -> None:
    version = NEWER if newer else older()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ada:secret@host:5432/mlflow")
    text = f"Detected out-of-date database schema (found version {version}, but expected abc)."
    line = reason(Exception(text))
    assert line.startswith("MLFLOW_TRACKING_URI postgresql://host:5432: of a")
    expected = "install that one" if newer else 'then: mlflow db upgrade "$MLFLOW_TRACKING_URI"'
    assert expected in line
