"""The tracking store in odd places: each path becomes an address and comes back from it."""

import os
import shutil
import subprocess
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from tracked_runs import artifacts_of, curve_of, open_store, runs, states_of
from trial_repository import STAGES, TrialRepository

from repro.repository import Commit, scratch
from repro.tracking import store
from repro.tracking.tags import clone_id

# What MLflow and SQLAlchemy tell each other is not ours; in a stage nobody sees it either.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ODD = "-o b ü u\u0308 ?x=1#y %41%20&'\"$[x];{z}:" + "l" * 120


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> TrialRepository:
    """A repository in a folder with an odd name, which is the working folder."""
    if os.name == "nt":
        pytest.skip("Windows refuses the folder's name")
    repository = TrialRepository(tmp_path / ODD)
    monkeypatch.chdir(repository.folder)
    shutil.copyfile(empty_database, repository.folder / "mlflow.db")
    return repository


def files_outside(folder: Path, repository: Path) -> list[Path]:
    return [f for f in folder.rglob("*") if f.is_file() and not f.is_relative_to(repository)]


def assert_complete(run: Any) -> None:
    assert set(states_of(run).values()) <= {"done", "reused"}
    assert set(states_of(run)) == set(STAGES)
    assert [step for step, _ in curve_of(run, "train/loss")] == list(range(1, 41))
    assert {"params.yaml", "samples.md", "samples.json", "dvc.lock"} <= artifacts_of(run)


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlflow.db", f"{ODD}/mlflow.db"])
def test_a_path_comes_back_from_its_address(name: str) -> None:
    from sqlalchemy.engine import make_url

    database = Path("/srv") / name
    uri = store.sqlite_uri(database)
    assert store.sqlite_file(uri) == database
    assert make_url(uri).database == str(database), "what MLflow opens"
    assert store.sqlite_file(f"{uri}?timeout=9") == database


@pytest.mark.parametrize(
    "uri", ["http://host:5000/x?y", "sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=ro"]
)
def test_what_is_no_file_has_none(uri: str) -> None:
    assert store.sqlite_file(uri) is None


def test_a_relative_address_is_meant_from_the_root_and_keeps_its_options(
    odd: TrialRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///kept/a%20b.db?timeout=9")
    uri = store.store_uri()
    assert store.sqlite_file(uri) == odd.folder / "kept/a b.db"
    assert uri.endswith("?timeout=9")


def test_runs_in_an_odd_folder_are_complete_and_nothing_is_written_beside_it(
    odd: TrialRepository, tmp_path: Path
) -> None:
    odd.run_all()
    (run,) = runs()
    assert_complete(run)
    assert files_outside(tmp_path, odd.folder) == []


def test_a_fresh_database_in_an_odd_folder_without_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**20, 2**20, 0))
    store.quiet_mlflow()
    database = tmp_path / ODD / "mlflow.db"
    database.parent.mkdir()
    monkeypatch.chdir(database.parent)
    store.make_database(database)
    store.check_database(database)
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["mlflow.db"]


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ['it\'s "x"%', "-ä"])
def test_an_experiment_of_any_name_has_one_complete_run(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", name)
    trial.run_all()
    (run,) = runs()
    assert_complete(run)
    assert run.data.tags["dvc.exp_name"] == name


# --- moved and copied -----------------------------------------------------------------------------


def test_a_moved_folder_keeps_its_runs_and_writes_nothing_where_it_was(
    trial: TrialRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.run_all()
    before, clone = trial.folder, clone_id()
    trial.folder = before.rename(tmp_path / "moved ü")
    monkeypatch.chdir(trial.folder)
    trial.set(temperature=0.55)
    trial.run("sample")
    assert not before.exists()
    assert clone_id() == clone
    for run in runs():
        assert_complete(run)
        assert run.info.artifact_uri.startswith(trial.folder.as_uri())


def test_a_copied_folder_is_another_clone_and_writes_nothing_into_the_first(
    trial: TrialRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.run_all()
    first, clone = trial.folder, clone_id()
    before = sorted(first.rglob("*"))
    trial.folder = Path(shutil.copytree(first, tmp_path / "copy"))
    monkeypatch.chdir(trial.folder)
    assert clone_id() != clone
    assert clone_id() == clone_id()
    trial.set(temperature=0.55)
    trial.run("sample")
    assert [len(artifacts_of(run)) > 3 for run in runs()] == [True, True]
    assert sorted(first.rglob("*")) == before


def test_a_clone_of_an_earlier_version_keeps_its_number(trial: TrialRepository) -> None:
    scratch().mkdir()
    (scratch() / "clone").write_text("0123456789abcdef", encoding="utf-8")
    assert clone_id() == clone_id() == "0123456789abcdef"


def test_a_database_that_was_moved_alone_keeps_the_addresses_of_its_artifacts(
    trial: TrialRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.run_all()
    second = TrialRepository(tmp_path / "second")
    shutil.copyfile(trial.folder / "mlflow.db", second.folder / "mlflow.db")
    monkeypatch.chdir(second.folder)
    (run,) = runs()
    assert "samples.md" in artifacts_of(run)


def test_a_shared_database_keeps_its_addresses(
    trial: TrialRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared.db"
    shutil.copyfile(trial.folder / "mlflow.db", shared)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared}")
    trial.run_all()
    second = TrialRepository(tmp_path / "second")
    (second.folder / "mlartifacts").mkdir()
    monkeypatch.chdir(second.folder)
    (run,) = runs()
    assert "samples.md" in artifacts_of(run)
    assert open_store().client.get_experiment(run.info.experiment_id).artifact_location == (
        (trial.folder / "mlartifacts").as_uri()
    )


# --- git ------------------------------------------------------------------------------------------


def test_files_of_a_commit_are_found_in_a_subfolder_of_a_larger_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "larger" / "ours"
    (folder / "metrics").mkdir(parents=True)
    (folder / "metrics/train.json").write_text("{}", encoding="utf-8")
    identity = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "x"]):
        subprocess.run(["git", *words], cwd=tmp_path / "larger", check=True)
    monkeypatch.chdir(folder)
    assert Commit("HEAD").read("metrics/train.json") == b"{}"
    assert Commit("HEAD").read("metrics/none.json") is None
