"""The tracking store: opens MLflow's database or server, and the project's experiment in it.

Everything here may raise; run.py turns that into one warning, `gpt ui` into one line. MLflow is
imported when the store is opened (about 2 s), through its client alone: the fluent API would keep
global state and log the user and the environment's tags by itself.
"""

import json
import logging
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from contextlib import closing, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock

from repro import repository
from repro.errors import UserError
from repro.project import Project
from repro.tracking import mlflow_internals

# The columns that the table shows at first beside the project's, with their widths in pixels.
VIEW = "scores"
VIEW_ALWAYS = {"attributes.`Run Name`": 230, "runDateAndNestInfo": 150, "duration": 80}

ROOM = 2**24  # bytes free in memory for a fresh database of 2 MB; a container may have few
PATIENCE = 5  # seconds for a database that another process is writing to


class Store:
    """The tracking store and the project's experiment in it."""

    def __init__(self, project: Project[Any]) -> None:
        quiet_mlflow()
        from mlflow.tracking import MlflowClient

        self.project, self.uri = project, store_uri()
        database = sqlite_file(self.uri)
        # Two processes that create one database at the same time crash each other.
        with FileLock(f"{database}.lock", timeout=60) if database else nullcontext():
            if database:
                make_database(database)
                check_database(database)
                check_version(database, self.uri)
            self.client: Any = MlflowClient(self.uri)
            if database and database.is_relative_to(repository.root()):
                correct_addresses(database, repository.root() / "mlartifacts", project.name)
            self.experiment = self._experiment()

    def _experiment(self) -> str:
        name = self.project.name
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            remote = self.uri.startswith(("http:", "https:"))
            # By default it would lie under the working folder, which may be a copy that goes away.
            folder = None if remote else (repository.root() / "mlartifacts").as_uri()
            tags = dict([mlflow_internals.KIND_OF_EXPERIMENT])
            tags["mlflow.note.content"] = self.project.description
            try:
                return str(self.client.create_experiment(name, artifact_location=folder, tags=tags))
            except Exception:
                # On a server somebody else may have been first; there is no lock between machines.
                experiment = self.client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage == "deleted":
            self.client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def page(self) -> str:
        """The table's path under the server's address, with its first columns chosen."""
        widths = VIEW_ALWAYS | dict(self.project.columns)
        view = {
            "selectedColumns": list(self.project.columns),
            "columnOrder": list(widths),
            "columnWidths": widths,
        }
        tag = mlflow_internals.view_tag(VIEW)
        self.client.set_experiment_tag(self.experiment, tag, json.dumps(view))
        return mlflow_internals.table_page(self.experiment, VIEW)

    def search(self, condition: str, limit: int = 1, *, deleted: bool = False) -> list[Any]:
        """The newest runs that meet a condition in MLflow's filter language; or of deleted ones."""
        from mlflow.entities import ViewType

        runs = self.client.search_runs(
            [self.experiment],
            condition,
            ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY,
            order_by=["start_time DESC"],
            max_results=limit,
        )
        return list(runs)


def quiet_mlflow() -> None:
    """Before MLflow is imported: no telemetry, no chatter, and no waiting for minutes."""
    # A server that does not answer must not hold up a stage for minutes, MLflow's default.
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "CRITICAL",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # A server's address after each stage, with the password that may be in it.
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # MLflow reads it as it is imported, which this process may have done before.
    logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"].upper())


def store_uri() -> str:
    """MLFLOW_TRACKING_URI, a relative SQLite path meant from the root; else <root>/mlflow.db."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    database = sqlite_file(uri)
    if database is None:
        return uri
    _, question_mark, options = uri.partition("?")
    return sqlite_uri(repository.root() / database) + question_mark + options


def sqlite_uri(database: Path) -> str:
    """The SQLite address of a file; SQLAlchemy would end the name at a `?`, and decode a `%41`."""
    # Nothing else is quoted: MLflow makes the folder that the address names, unread.
    return "sqlite:///" + str(database).replace("%", "%25").replace("?", "%3F")


def sqlite_file(uri: str) -> Path | None:
    """The database file of a SQLite address; None for a server."""
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    if not uri.startswith("sqlite:///") or not path or path.startswith((":", "file:")):
        return None
    return Path(urllib.parse.unquote(path))


def make_database(database: Path) -> None:
    """Makes a fresh database elsewhere, then moves it here complete.

    MLflow takes dozens of migrations for it, each synced to the disk: in memory they take half the
    time, and a process killed half-way leaves no half of a database.
    """
    if database.exists():
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    memory = Path("/dev/shm")  # noqa: S108 (the folder made in it is private)
    usable = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM
    parent = memory if usable else database.parent
    with tempfile.TemporaryDirectory(prefix=f"{database.name}.", dir=parent) as folder:
        fresh = Path(folder) / database.name
        artifacts = (database.parent / "mlruns").as_uri()
        mlflow_internals.create_tables(sqlite_uri(fresh), artifacts)
        new = database.with_name(f"{database.name}.{os.getpid()}.new")
        try:
            shutil.copyfile(fresh, new)
            new.replace(database)
        finally:
            new.unlink(missing_ok=True)


def correct_addresses(database: Path, folder: Path, experiment: str) -> None:
    """Corrects the addresses of artifacts where the repository was moved or copied.

    MLflow would else write into the folder that was moved away, or into the one it was copied from.
    """
    with closing(sqlite3.connect(database, timeout=PATIENCE)) as opened, opened:
        query = "SELECT artifact_location FROM experiments WHERE name = ?"
        (old,) = opened.execute(query, (experiment,)).fetchone() or ("",)
        new, before = folder.as_uri(), urllib.parse.urlsplit(old)
        if old == new or before.scheme != "file":
            return
        # A database that was moved alone: its artifacts are still where they were.
        if not folder.is_dir() and Path(urllib.request.url2pathname(before.path)).is_dir():
            return
        for table, column in mlflow_internals.ADDRESSES:
            opened.execute(
                f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1) "  # noqa: S608
                f"WHERE substr({column} || '/', 1, length(:old) + 1) = :old || '/'",
                {"old": old, "new": new},
            )


def check_version(database: Path, uri: str) -> None:
    """Upgrades a database of an older MLflow, after a copy of it. Raises UserError otherwise.

    Before MLflow opens it: that would upgrade one that lacks tables without a copy.
    """
    with closing(sqlite3.connect(database, timeout=PATIENCE)) as opened:
        (version,) = opened.execute(mlflow_internals.VERSION).fetchone() or ("",)
    known = mlflow_internals.database_versions()
    if version == known[0]:
        return
    if version not in known or not database.is_relative_to(repository.root()):
        raise UserError(other_version(version, str(database), shlex.quote(uri)))
    copy = database.with_name(f"{database.name}.{version}")
    print(f"tracking: {database}: of an older MLflow, is upgraded; a copy: {copy}", file=sys.stderr)
    with (
        closing(sqlite3.connect(database, timeout=PATIENCE)) as opened,
        closing(sqlite3.connect(copy)) as backup,
    ):
        opened.backup(backup)
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", uri]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        raise UserError(f"{database}: cannot be upgraded ({last}); move it, its copy is {copy}")


def other_version(version: str, store: str, uri: str) -> str:
    """One line for tables of another version; `uri`: the address as a shell's word."""
    here = f"than the {metadata.version('mlflow')} installed here"
    if version in mlflow_internals.database_versions():
        return f"{store}: of an older MLflow {here}; copy it, then: mlflow db upgrade {uri}"
    return (
        f"{store}: of a newer MLflow {here} (its tables are of version {version}); install that "
        "one, or name another store in MLFLOW_TRACKING_URI"
    )


def check_database(database: Path) -> None:
    """Raises OSError at once where it cannot be written: MLflow would retry for minutes."""
    # mode=rw: by default SQLite would put an empty database where one has been deleted.
    name = f"{database.as_uri()}?mode=rw"
    options: dict[str, Any] = {"timeout": PATIENCE, "isolation_level": None, "uri": True}
    try:
        with closing(sqlite3.connect(name, **options)) as opened:
            opened.execute("BEGIN IMMEDIATE")
            opened.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise OSError(f"{database}: {error}") from None
