"""MLflow's runs as the tests of tracking read them back, through its client."""

import sqlite3
from pathlib import Path
from typing import Any

from trial_repository import STAGES

from repro.tracking import store
from stages.params import PROJECT


def open_store() -> store.Store:
    return store.Store(PROJECT)


def runs() -> list[Any]:
    """All runs of MLflow, the newest first."""
    return open_store().search("", limit=50)


def curve_of(run: Any, name: str) -> list[tuple[int, float]]:
    history = open_store().client.get_metric_history(run.info.run_id, name)
    return sorted((metric.step, metric.value) for metric in history)


def artifacts_of(run: Any) -> set[str]:
    return {artifact.path for artifact in open_store().client.list_artifacts(run.info.run_id)}


def states_of(run: Any) -> dict[str, str]:
    return {stage: run.data.tags.get(f"stage.{stage}") for stage in STAGES}


def locked(database: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection
