"""Writes rows into MLflow: opens the store, finds or begins a row, completes it.

Everything here may raise; repro/tracking/run.py turns that into one warning, `gpt ui` into one
line.
MLflow is imported when the store is opened (about 2 s), through its client alone: the fluent API
would keep global state and record the user and the environment's tags by itself.
"""

import json
import logging
import os
import platform
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
from filelock import FileLock

from repro import repository as workspace
from repro.tracking.contents import (
    CORPUS,
    Files,
    Pipeline,
    Point,
    WorkingFolder,
    changes_of,
    git,
    key_of,
    params_of_row,
)
from stages.params import Params

EXPERIMENT = "repro-gpt"
ABOUT = (
    "One row is one experiment; lower evaluate/val/bits_per_byte is better. "
    "Tick two rows and press Compare.\n\n"
    "A row holds all params and metrics of the pipeline, the curves of its training (train/...), "
    "how long it took (time/...), and as artifacts its samples, pictures, params.yaml and dvc.lock."
)

# The columns that the table shows at first, with their widths; the rest is one click away.
VIEW = "scores"
VIEW_ALWAYS = {"attributes.`Run Name`": 230, "runDateAndNestInfo": 150, "duration": 80}
VIEW_COLUMNS = {
    "metrics.`evaluate/val/bits_per_byte`": 190,
    "metrics.`evaluate/val/loss`": 140,
    "metrics.`train/parameters`": 140,
    "metrics.`time/train_s`": 110,
    "params.`preset`": 80,
    "params.`model.n_layer`": 110,
    "params.`model.n_embd`": 110,
    "params.`train.steps`": 100,
    "params.`train.learning_rate`": 150,
    "params.`data.corpus`": 100,
    "params.`seed`": 70,
}

PATIENCE = 5  # seconds for a database that another process is writing to
SYSTEM_METRICS_EVERY = 5  # seconds
SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ash", "ksh"}
DONE = ("done", "reused")


class Store:
    """The tracking store and the experiment in it."""

    def __init__(self) -> None:
        quiet_mlflow()
        from mlflow.tracking import MlflowClient

        self.uri = store_uri()
        database = _sqlite_file(self.uri)
        # Two processes that create one database at the same time crash each other.
        with FileLock(f"{database}.lock", timeout=60) if database else nullcontext():
            if database:
                make_database(database)
                check_database(database)
            self.client: Any = MlflowClient(self.uri)
            self.experiment = self._experiment()

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            remote = self.uri.startswith(("http:", "https:"))
            # By default it would lie under the working folder, which may be a copy that goes away.
            place = None if remote else (workspace.root() / "mlartifacts").as_uri()
            tags = {
                "mlflow.note.content": ABOUT,
                # Else the page first asks whether this is about agents or about models.
                "mlflow.experimentKind": "custom_model_development",
            }
            try:
                return str(
                    self.client.create_experiment(EXPERIMENT, artifact_location=place, tags=tags)
                )
            except Exception:
                # On a server somebody else may have been first; there is no lock between machines.
                found = self.client.get_experiment_by_name(EXPERIMENT)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def page(self) -> str:
        """Where the table is found under the server's address, with its first columns chosen."""
        widths = VIEW_ALWAYS | VIEW_COLUMNS
        view = {
            "selectedColumns": list(VIEW_COLUMNS),
            "columnOrder": list(widths),
            "columnWidths": widths,
        }
        tag = f"mlflow.sharedViewState.{VIEW}"
        self.client.set_experiment_tag(self.experiment, tag, json.dumps(view))
        query = f"viewStateShareKey={VIEW}&workflowType=machine_learning"
        return f"/#/experiments/{self.experiment}/runs?{query}"

    def search(self, condition: str, limit: int = 1) -> list[Any]:
        """The newest runs that meet a condition in MLflow's filter language."""
        return list(
            self.client.search_runs(
                [self.experiment], condition, order_by=["start_time DESC"], max_results=limit
            )
        )


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
    # MLflow reads it as it is imported, which somebody in this process may have done before.
    logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"].upper())


def store_uri() -> str:
    """MLFLOW_TRACKING_URI, a relative SQLite path meant from the root; else <root>/mlflow.db."""
    given = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    database = _sqlite_file(given)
    return f"sqlite:///{workspace.root() / database}" if database else given


def _sqlite_file(uri: str) -> Path | None:
    path = uri.removeprefix("sqlite:///")
    return Path(path) if path != uri and not path.startswith((":", "file:")) and path else None


def make_database(database: Path) -> None:
    """Makes a fresh database elsewhere, then moves it here whole.

    MLflow takes dozens of migrations for it, each synced to the disk: half the time goes without
    the disk, and who is killed in the middle leaves no half of a database.
    """
    if database.exists():
        return
    from mlflow.tracking import MlflowClient

    memory = Path("/dev/shm")  # noqa: S108 (only looked at; the folder made in it is private)
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        made = Path(folder) / database.name
        MlflowClient(f"sqlite:///{made}")
        database.parent.mkdir(parents=True, exist_ok=True)
        new = database.with_name(f"{database.name}.{os.getpid()}.new")
        try:
            shutil.copyfile(made, new)
            new.replace(database)
        finally:
            new.unlink(missing_ok=True)


def check_database(database: Path) -> None:
    """Raises at once where the database cannot be written: MLflow would retry for minutes."""
    fault: Exception
    # Not as SQLite does by itself, which would put an empty database where one has been deleted.
    name = f"{database.as_uri()}?mode=rw"
    try:
        with closing(
            sqlite3.connect(name, timeout=PATIENCE, isolation_level=None, uri=True)
        ) as opened:
            opened.execute("BEGIN IMMEDIATE")
            opened.execute("ROLLBACK")
            return
    except sqlite3.Error as error:
        fault = error
    raise OSError(f"{database}: {fault}") from None


class RowOfStore:
    """One run of MLflow, and what it already holds."""

    def __init__(self, store: Store, run: Any) -> None:
        self.store, self.client = store, store.client
        self.id: str = run.info.run_id
        self.tags: dict[str, str] = dict(run.data.tags)
        self.metrics: dict[str, float] = dict(run.data.metrics)
        self._steps: dict[str, set[int]] = {}

    @classmethod
    def begin(
        cls,
        store: Store,
        files: Files,
        params: Params,
        tags: dict[str, str],
        at: int | None = None,
    ) -> "RowOfStore":
        """A new run with all params and the files that define it, as of `at` (ms) or now."""
        run = store.client.create_run(
            store.experiment, start_time=at, tags=tags, run_name=tags.get("mlflow.runName")
        )
        row = cls(store, run)
        from mlflow.entities import Param

        all_params = [Param(key, value) for key, value in params_of_row(params).items()]
        store.client.log_batch(row.id, params=all_params)
        for name in ("params.yaml", "dvc.yaml"):
            row.put_file(name, files.read(name))
        return row

    def put_file(self, path: str, content: bytes | None) -> None:
        if content is None:
            return
        if not path.endswith(".png"):
            self.client.log_text(self.id, content.decode(errors="replace"), path)
            return
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / Path(path).name
            file.write_bytes(content)
            self.client.log_artifact(self.id, str(file), str(Path(path).parent))

    def write(self, points: list[Point], tags: dict[str, str] | None = None) -> None:
        """Sends points of curves, but no step that the row has already; and tags."""
        new = []
        for name, step, value in points:
            # A speed has no steps: of a training in parts, the last part's counts.
            if name.startswith("time/") or step not in self._steps_of(name):
                self._steps_of(name).add(step)
                new.append((name, step, value))
        self._send(new, tags or {})

    def replace(self, values: dict[str, float], tags: dict[str, str] | None = None) -> None:
        """Sends figures that have no steps; of several the latest counts."""
        new = [
            (name, 0, value) for name, value in values.items() if self.metrics.get(name) != value
        ]
        self._send(new, tags or {})

    def _send(self, points: list[Point], tags: dict[str, str]) -> None:
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, step, value in points]
        named = [RunTag(key, tag[:8000]) for key, tag in tags.items() if self.tags.get(key) != tag]
        # MLflow takes 1,000 entities at a time.
        for start in range(0, len(metrics), 900):
            self.client.log_batch(self.id, metrics=metrics[start : start + 900])
        if named:
            self.client.log_batch(self.id, tags=named)
        self.metrics |= {name: value for name, _, value in points}
        self.tags |= tags

    def _steps_of(self, name: str) -> set[int]:
        if name not in self._steps:
            known = self.client.get_metric_history(self.id, name) if name in self.metrics else []
            self._steps[name] = {metric.step for metric in known}
        return self._steps[name]

    def complete(self, pipeline: Pipeline, stages: list[str]) -> None:
        """Fills in `stages` from their results, those that the row has not got yet."""
        for stage in stages:
            was = self.tags.get(f"stage.{stage}")
            if was not in DONE:
                # A stage that was killed here, or lost its tracking, did run for this row.
                self.fill(pipeline, stage, "done" if was else "reused")
        if pipeline.model_md5() and "train" in stages:
            self.copy_times(pipeline)
        self.put_file("dvc.lock", pipeline.files.read("dvc.lock"))

    def fill(self, pipeline: Pipeline, stage: str, state: str) -> None:
        """Metrics, curve, pictures and samples of one stage, from its files."""
        curve = pipeline.curve(stage)
        # `train/loss` is a curve's, should a metrics file have it too.
        curves = {name for name, _, _ in curve}
        figures = {k: value for k, value in pipeline.metrics(stage).items() if k not in curves}
        tags = {f"stage.{stage}": state}
        if stage == "train" and (model := pipeline.model_md5()):
            tags["model.md5"] = model
        for path, content in pipeline.pages(stage).items():
            self.put_file(path, content)
        if stage == "sample" and not self._has("samples.json") and (table := pipeline.samples()):
            self.client.log_table(self.id, table, "samples.json")
        if stage == "prepare":
            self._log_dataset(pipeline)
        self.write(curve)
        # The tag last: what it says must be there.
        self.replace(figures, tags)

    def _has(self, path: str) -> bool:
        return any(found.path == path for found in self.client.list_artifacts(self.id))

    def _log_dataset(self, pipeline: Pipeline) -> None:
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.data.sources import LocalArtifactDatasetSource
        from mlflow.entities import DatasetInput

        digest = pipeline.corpus_md5()
        if digest is None:
            return
        corpus = MetaDataset(
            LocalArtifactDatasetSource(CORPUS), name=pipeline.params.data.corpus, digest=digest
        )
        self.client.log_inputs(self.id, [DatasetInput(corpus._to_mlflow_entity())])

    def copy_times(self, pipeline: Pipeline) -> None:
        """How long the reused model took, from the row that trained it."""
        missing = [
            f"time/{stage}_s"
            for stage in ("train", *sorted(pipeline.before("train")))
            if self.tags.get(f"stage.{stage}") == "reused"
        ]
        if "time/train_s" in missing:
            missing.append("time/tokens_per_second")
        missing = [name for name in missing if name not in self.metrics]
        if not missing:
            return
        same = self.store.search(f"tags.`model.md5` = '{pipeline.model_md5()}'", limit=50)
        for donor in same:
            times = donor.data.metrics
            if donor.info.run_id != self.id and "time/train_s" in times:
                self.replace({name: times[name] for name in missing if name in times})
                return


class StageOfRow:
    """One run of a stage and the row it belongs to."""

    def __init__(self, name: str, params: Params) -> None:
        self.name, self.params = name, params
        self.monitor: Any = None
        store = Store()
        files = WorkingFolder()
        pipeline = Pipeline(files, params, running=name)
        inputs, execution = pipeline.inputs(name), execution_id()
        experiment = os.environ.get("DVC_EXP_NAME")
        key = key_of(params, experiment)
        # On a server, others may run the same at the same time: theirs are rows of their own.
        clone = clone_id()
        latest = store.search(f"tags.`pipeline.key` = '{key}' AND tags.clone = '{clone}'")
        joined = bool(latest) and _joins(latest[0].data.tags, name, inputs, execution, pipeline)
        if joined:
            self.row = RowOfStore(store, latest[0])
            store.client.update_run(self.row.id, status="RUNNING")
        else:
            tags = tags_of_row(params, experiment) | tags_of_machine()
            tags |= {"pipeline.key": key, "execution": execution, "clone": clone}
            self.row = RowOfStore.begin(store, files, params, tags)
        self.row.complete(pipeline, pipeline.valid())
        mine = {f"stage.{name}": "running", f"inputs.{name}": inputs}
        # An interrupted training goes on: its parts add up.
        again = self.row.tags.get(f"stage.{name}") not in (None, *DONE)
        self.seconds_before = self.row.metrics.get(f"time/{name}_s", 0.0) if again else 0.0
        self.row.replace({}, mine)
        if name == "train":
            self._watch_system(joined)
        # Last, so that what tracking costs is not counted as the stage's own time.
        self.started = time.monotonic()

    def _watch_system(self, joined: bool) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self.monitor = SystemMetricsMonitor(
            self.row.id,
            sampling_interval=SYSTEM_METRICS_EVERY,
            resume_logging=joined,
            tracking_uri=self.row.store.uri,
        )
        self.monitor.start()

    def log_points(self, points: list[Point]) -> None:
        if points:
            self._check()
            self.row.write(points)

    def log_text(self, text: str, path: str) -> None:
        # Surrogates cannot be written as UTF-8.
        self.row.client.log_text(self.row.id, text.encode(errors="replace").decode(), path)

    def _check(self) -> None:
        database = _sqlite_file(self.row.store.uri)
        if database:
            check_database(database)

    def end(self, state: str) -> None:
        if self.monitor is not None:
            self.monitor.finish()
        self._check()
        seconds = self.seconds_before + time.monotonic() - self.started
        self.row.replace({f"time/{self.name}_s": round(seconds, 3)})
        if state == "done":
            pipeline = Pipeline(WorkingFolder(), self.params, running=self.name, finished=True)
            self.row.fill(pipeline, self.name, "done")
            # It was for a rerun of a stopped stage, and would only clutter the page.
            self.row.client.delete_tag(self.row.id, f"inputs.{self.name}")
            # Where the results came out as before, DVC will not run what follows: it is done too.
            self.row.complete(pipeline, pipeline.valid())
        else:
            self.row.replace({}, {f"stage.{self.name}": state})
        status = {"done": "FINISHED", "interrupted": "KILLED"}.get(state, "FAILED")
        self.row.client.set_terminated(self.row.id, status)


def _joins(
    tags: dict[str, str], stage: str, inputs: str, execution: str, pipeline: Pipeline
) -> bool:
    """Whether this run of the stage belongs to the newest row with the same key."""
    model = pipeline.model_md5()
    if model and tags.get("model.md5", model) != model:
        return False
    state = tags.get(f"stage.{stage}")
    if state in ("running", "failed", "interrupted"):
        # Under other code it starts afresh, and two trainings must not share a curve.
        return tags.get(f"inputs.{stage}") == inputs
    if state == "reused":
        # Filled in a moment ago, and now forced to run: `dvc repro --force`.
        return tags.get("execution") == execution
    return state is None


def execution_id() -> str:
    """The process that runs the stages one after the other: `dvc`, or who started it by hand."""
    try:
        for process in psutil.Process().parents():
            if process.name() not in SHELLS:
                return f"{process.pid}-{process.create_time():.2f}"
    except psutil.Error:
        pass
    return f"{os.getpid()}-{time.time():.2f}"


def clone_id() -> str:
    """What tells this clone of the repository from all others, on whichever machine it is used."""
    file = workspace.scratch() / "clone"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock", timeout=60):
        if not file.exists():
            file.write_text(uuid4().hex, encoding="utf-8")
        return file.read_text(encoding="utf-8")


def tags_of_row(params: Params, experiment: str | None) -> dict[str, str]:
    """What names a row, for people and for MLflow's pages."""
    changes = changes_of(params)
    about = f"preset {params.preset}" + (f", overridden: {changes}" if changes else "")
    tags = {
        "mlflow.runName": (experiment or f"workspace {params.preset} {changes}".strip())[:120],
        "mlflow.note.content": about,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": "dvc exp run" if experiment else "dvc repro",
    }
    return tags | ({"dvc.exp_name": experiment} if experiment else {})


def tags_of_machine() -> dict[str, str]:
    """The code's commit, the machine and the versions that this process runs under."""
    tags = {"host": platform.node(), "version.python": platform.python_version()}
    for package in ("torch", "dvc", "mlflow"):
        try:
            tags[f"version.{package}"] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    commit = git("rev-parse", "HEAD")
    if commit:
        tags["mlflow.source.git.commit"] = commit.decode().strip()
        # params.yaml and dvc.lock change with every experiment: only code makes it dirty.
        changed = git("status", "--porcelain", "--", "gpt", "stages", "dvc.yaml")
        tags["git.dirty"] = "true" if changed else "false"
    return tags
