"""Writes rows into MLflow: opens the store, finds or begins a row, completes it.

Everything here may raise; stages/tracking.py turns that into one warning, `gpt ui` into one line.
MLflow is imported when the store is opened (about 2 s), through its client alone: the fluent API
would keep global state and record the user and the environment's tags by itself.
"""

import logging
import os
import platform
import sqlite3
import subprocess
import time
from contextlib import closing, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from stages import workspace
from stages.params import Params
from stages.rows import CORPUS, Files, Pipeline, Point, WorkingFolder, changes_of, key_of
from stages.rows import params_of_row as params_of_row

EXPERIMENT = "repro-gpt"
ABOUT = """One row is one execution of the pipeline: all its params, all its metrics, the curves of
its training and what it writes. Columns: *evaluate/val/bits_per_byte* is the score to compare (lower
is better), *train/...* are the curves, *time/...* how long it took. Select two rows and press
*Compare*; artifacts hold the samples, the pictures and dvc.lock."""

PATIENCE = 5  # seconds for a database that another process is writing to
SYSTEM_METRICS_EVERY = 5  # seconds
SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ash", "ksh"}
DONE = ("done", "reused")


class Store:
    """The tracking store and the experiment in it."""

    def __init__(self) -> None:
        # A server that does not answer must not hold up a stage for minutes, MLflow's default.
        for name, value in {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_LOGGING_LEVEL": "CRITICAL",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
            "GIT_PYTHON_REFRESH": "quiet",
        }.items():
            os.environ.setdefault(name, value)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow.tracking import MlflowClient

        self.uri = store_uri()
        database = _sqlite_file(self.uri)
        # Two processes that create one database at the same time crash each other.
        with FileLock(f"{database}.lock", timeout=60) if database else nullcontext():
            if database:
                check_database(database)
            self.client: Any = MlflowClient(self.uri)
            self.experiment = self._experiment()

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            remote = self.uri.startswith(("http:", "https:"))
            # By default it would lie under the working folder, which may be a copy that goes away.
            place = None if remote else (workspace.root() / "mlartifacts").as_uri()
            tags = {"mlflow.note.content": ABOUT, "mlflow.experimentKind": "custom_model_development"}
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

    def search(self, condition: str, limit: int = 1) -> list[Any]:
        """The newest runs that meet a condition in MLflow's filter language."""
        return list(
            self.client.search_runs(
                [self.experiment], condition, order_by=["start_time DESC"], max_results=limit
            )
        )


def store_uri() -> str:
    """MLFLOW_TRACKING_URI, a relative SQLite path meant from the root; else <root>/mlflow.db."""
    given = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    database = _sqlite_file(given)
    return f"sqlite:///{workspace.root() / database}" if database else given


def _sqlite_file(uri: str) -> Path | None:
    path = uri.removeprefix("sqlite:///")
    return Path(path) if path != uri and not path.startswith((":", "file:")) and path else None


def check_database(database: Path) -> None:
    """Raises at once where the database cannot be written: MLflow would retry for minutes."""
    database.parent.mkdir(parents=True, exist_ok=True)
    fault: Exception
    try:
        with closing(sqlite3.connect(database, timeout=PATIENCE, isolation_level=None)) as opened:
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
        self._donor: Any = None

    @classmethod
    def begin(cls, store: Store, files: Files, params: Params, tags: dict[str, str]) -> "RowOfStore":
        """A new run with all params and the files that define it."""
        run = store.client.create_run(
            store.experiment, tags=tags, run_name=tags.get("mlflow.runName")
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
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / Path(path).name
            file.write_bytes(content)
            self.client.log_artifact(self.id, str(file), str(Path(path).parent))

    def write(self, points: list[Point], tags: dict[str, str] | None = None) -> None:
        """Sends metrics and tags; points whose step the row has already are left out."""
        from mlflow.entities import Metric, RunTag

        new: list[Point] = []
        for name, step, value in points:
            if step not in self._steps_of(name):
                self._steps[name].add(step)
                new.append((name, step, value))
                self.metrics[name] = value
        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, step, value in new]
        tags = {key: value for key, value in (tags or {}).items() if self.tags.get(key) != value}
        self.tags |= tags
        named = [RunTag(key, value[:8000]) for key, value in tags.items()]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(self.id, metrics=metrics[start : start + 1000])
        if named:
            self.client.log_batch(self.id, tags=named)

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
        points = [(name, 0, value) for name, value in pipeline.metrics(stage).items()]
        # The curves come second: `train/loss` is theirs should a metrics file have it too.
        curve = pipeline.curve(stage)
        curved = {name for name, _, _ in curve}
        points = [point for point in points if point[0] not in curved] + curve
        tags = {f"stage.{stage}": state}
        if stage == "train" and (model := pipeline.model_md5()):
            tags["model.md5"] = model
        for path, content in pipeline.pages(stage).items():
            self.put_file(path, content)
        if stage == "sample" and not self._has("samples.json") and (table := pipeline.samples()):
            self.client.log_table(self.id, table, "samples.json")
        if stage == "prepare":
            self._log_dataset(pipeline)
        self.write(points, tags)

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
                self.write([(name, 0, times[name]) for name in missing if name in times])
                return


class StageOfRow:
    """One run of a stage and the row it belongs to."""

    def __init__(self, name: str, params: Params) -> None:
        self.name, self.params = name, params
        self.started = time.monotonic()
        self.monitor: Any = None
        store = Store()
        files = WorkingFolder()
        pipeline = Pipeline(files, params, running=name)
        inputs, execution = pipeline.inputs(name), execution_id()
        experiment = os.environ.get("DVC_EXP_NAME")
        key = key_of(params, experiment)
        latest = store.search(f"tags.`pipeline.key` = '{key}'")
        joined = bool(latest) and _joins(latest[0].data.tags, name, inputs, execution, pipeline)
        if joined:
            self.row = RowOfStore(store, latest[0])
            store.client.update_run(self.row.id, status="RUNNING")
        else:
            tags = tags_of_row(params, experiment) | {"pipeline.key": key, "execution": execution}
            self.row = RowOfStore.begin(store, files, params, tags)
        self.row.complete(pipeline, pipeline.valid())
        mine = {f"stage.{name}": "running", f"inputs.{name}": inputs}
        # An interrupted training goes on: its parts add up.
        again = self.row.tags.get(f"stage.{name}") not in (None, *DONE)
        self.seconds_before = self.row.metrics.get(f"time/{name}_s", 0.0) if again else 0.0
        self.row.write([], mine)
        if name == "train":
            self._watch_system(joined)

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
        self._log_seconds(round(seconds, 3))
        if state == "done":
            pipeline = Pipeline(WorkingFolder(), self.params, running=self.name, finished=True)
            self.row.fill(pipeline, self.name, "done")
            # Where the results came out as before, DVC will not run what follows: it is done too.
            self.row.complete(pipeline, pipeline.valid())
        else:
            self.row.write([], {f"stage.{self.name}": state})
        status = {"done": "FINISHED", "interrupted": "KILLED"}.get(state, "FAILED")
        self.row.client.set_terminated(self.row.id, status)

    def _log_seconds(self, seconds: float) -> None:
        # log_metric, since the last value counts and not the first of a step.
        self.row.client.log_metric(self.row.id, f"time/{self.name}_s", seconds, step=0)
        self.row.metrics[f"time/{self.name}_s"] = seconds


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


def tags_of_row(params: Params, experiment: str | None) -> dict[str, str]:
    """Where a row comes from: its name, the code's commit, the versions it ran under."""
    changes = changes_of(params)
    made = f"{params.preset} {changes}".strip()
    tags = {
        "mlflow.runName": (experiment or f"workspace {made}")[:120],
        "mlflow.note.content": f"preset {params.preset}"
        + (f", overridden: {changes}" if changes else ""),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": "dvc exp run" if experiment else "dvc repro",
        "dvc.exp_name": experiment or "",
        "host": platform.node(),
        "version.python": platform.python_version(),
    }
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
    return {key: value for key, value in tags.items() if value}


def git(*arguments: str) -> bytes | None:
    """What git prints, or None where it fails or is not there."""
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
