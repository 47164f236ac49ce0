"""What MLflow promises nobody: private names, its tables, tags of its pages; each used here alone.

tests/repro/test_internals.py asks the installed MLflow for every one of them.
"""

import re
from typing import Any

# What it keeps absolute addresses of artifacts in: table, column.
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
# The table that holds the version of all others.
VERSION = "SELECT version_num FROM alembic_version"
# Without this tag of an experiment the page first asks whether it is about agents or models.
KIND_OF_EXPERIMENT = ("mlflow.experimentKind", "custom_model_development")
# The modules that a stage with tracking imports.
MODULES = ("mlflow.store.tracking.sqlalchemy_store", "mlflow.system_metrics")
# What it says of a database of another version.
_OTHER_VERSION = re.compile(r"database schema \(found version (\w+), but expected \w+\)")


def view_tag(view: str) -> str:
    """The tag of an experiment that holds which columns a view of its table shows."""
    return f"mlflow.sharedViewState.{view}"


def table_page(experiment: str, view: str) -> str:
    """The path of an experiment's table of runs, as that view."""
    query = f"viewStateShareKey={view}&workflowType=machine_learning"
    return f"/#/experiments/{experiment}/runs?{query}"


def create_tables(uri: str, artifacts: str) -> None:
    """Makes the tables of an empty database."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    # It writes the address into SQL without quoting it; its default is the working folder's path.
    store = SqlAlchemyStore(uri, artifacts)
    store.engine.dispose()  # Windows deletes no file that is open


def database_versions() -> list[str]:
    """The versions of its tables that the installed MLflow knows, the newest first."""
    from mlflow.store.db import utils

    scripts = utils.ScriptDirectory.from_config(utils._get_alembic_config(""))
    return [script.revision for script in scripts.walk_revisions()]


def other_version(error: Exception) -> str | None:
    """The version of the tables that MLflow refused with `error`, if that is why."""
    match = _OTHER_VERSION.search(str(error))
    return match[1] if match else None


def system_metrics(run_id: str, uri: str, seconds: int, resumed: bool) -> Any:
    """A thread that logs the machine's metrics to a run, with methods start and finish."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    return SystemMetricsMonitor(
        run_id, sampling_interval=seconds, resume_logging=resumed, tracking_uri=uri
    )


def dataset_input(path: str, name: str | None, digest: str) -> Any:
    """A dataset as a run lists it: its file or folder, name and hash."""
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.data.sources import LocalArtifactDatasetSource
    from mlflow.entities import DatasetInput

    source = LocalArtifactDatasetSource(path)
    dataset = MetaDataset(source, name=name or source.uri, digest=digest)
    return DatasetInput(dataset._to_mlflow_entity())
