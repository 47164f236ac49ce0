"""A repository to track, with an empty database; making one takes seconds, so it is copied."""

import shutil
from pathlib import Path

import pytest
from trial_repository import TrialRepository

from repro.tracking import store


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
