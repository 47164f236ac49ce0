"""One execution of a stage, and the MLflow run that it joins or begins."""

import os
import platform
import time
from typing import Any

from repro import dvc_internals
from repro.lockfile import Pipeline
from repro.project import AnyParams, Project
from repro.repository import WorkingFolder
from repro.tracking import mlflow_internals
from repro.tracking.contents import Point, key_of
from repro.tracking.store import Store, check_database, sqlite_file
from repro.tracking.stored_run import DONE, StoredRun
from repro.tracking.tags import clone_id, execution_id, tags_of_machine, tags_of_run

SYSTEM_METRICS_EVERY = 5  # seconds
STATUS = {"done": "FINISHED", "interrupted": "KILLED"}  # by state of the stage; else FAILED


class StageRun:
    """What a stage logs, from its beginning to its end. Everything here may raise."""

    def __init__(self, project: Project[AnyParams], name: str, params: AnyParams) -> None:
        self.name, self.params = name, params
        pipeline = Pipeline(WorkingFolder(), params.model_dump(), running=name)
        self.run, joined = self._join_or_begin(Store(project), pipeline)
        self.run.complete(pipeline, pipeline.valid())
        self.seconds_before = self._seconds_before()
        self.run.replace({}, {f"stage.{name}": "running", f"inputs.{name}": pipeline.inputs(name)})
        makes_model = pipeline.maker(pipeline.artifact("model").get("path", "")) == name
        self.monitor = self._watch_system(joined) if makes_model else None
        # Last, so that what tracking costs is not counted as the stage's own time.
        self.started = time.monotonic()

    def _join_or_begin(self, store: Store, pipeline: Pipeline) -> tuple[StoredRun, bool]:
        """The newest run of these params where this stage may join it, else a new one."""
        experiment = os.environ.get(dvc_internals.EXPERIMENT)
        execution, clone = execution_id(), clone_id()
        key = key_of(self.params, experiment)
        # On a server, other clones may run the same at the same time: theirs are runs of their own.
        latest = store.search(f"tags.`pipeline.key` = '{key}' AND tags.clone = '{clone}'")
        if latest and _may_join(latest[0].data.tags, self.name, execution, pipeline):
            run = StoredRun(store, latest[0])
            # First: by its old tags the backfill would take the process for dead and end the run.
            run.replace({}, {"execution": execution, "host": platform.node()})
            store.client.update_run(run.id, status="RUNNING")
            run.define(pipeline.files, self.params)
            return run, True
        tags = tags_of_run(self.params, experiment, pipeline.files) | tags_of_machine(pipeline)
        tags |= {"pipeline.key": key, "execution": execution, "clone": clone}
        return StoredRun.begin(store, pipeline.files, self.params, tags), False

    def _seconds_before(self) -> float:
        """The seconds that an interrupted execution of this stage took already: they add up."""
        interrupted = self.run.tags.get(f"stage.{self.name}") not in (None, *DONE)
        return self.run.metrics.get(f"time/{self.name}_s", 0.0) if interrupted else 0.0

    def _watch_system(self, joined: bool) -> Any:
        monitor = mlflow_internals.system_metrics(
            self.run.id, self.run.store.uri, SYSTEM_METRICS_EVERY, joined
        )
        monitor.start()
        return monitor

    def log_points(self, points: list[Point]) -> None:
        if points:
            self._check()
            self.run.write(points)

    def log_text(self, text: str, path: str) -> None:
        # Surrogates cannot be written as UTF-8.
        self.run.client.log_text(self.run.id, text.encode(errors="replace").decode(), path)

    def _check(self) -> None:
        database = sqlite_file(self.run.store.uri)
        if database:
            check_database(database)

    def end(self, state: str) -> None:
        """Logs the stage's time and, when it is done, its results."""
        if self.monitor is not None:
            self.monitor.finish()
        self._check()
        seconds = self.seconds_before + time.monotonic() - self.started
        self.run.replace({f"time/{self.name}_s": round(seconds, 3)})
        if state == "done":
            pipeline = Pipeline(WorkingFolder(), self.params.model_dump(), finished=self.name)
            self.run.fill(pipeline, self.name, "done")
            # It was for a rerun of a stopped stage, and would only clutter the page.
            self.run.client.delete_tag(self.run.id, f"inputs.{self.name}")
            # Where the results came out as before, DVC will not run what follows: it is done too.
            self.run.complete(pipeline, pipeline.valid())
        else:
            self.run.replace({}, {f"stage.{self.name}": state})
        self.run.client.set_terminated(self.run.id, STATUS.get(state, "FAILED"))


def _may_join(tags: dict[str, str], stage: str, execution: str, pipeline: Pipeline) -> bool:
    """Whether this execution of the stage belongs to the newest run with the same key."""
    model = pipeline.model_md5()
    if model and tags.get("model.md5", model) != model:
        return False
    state = tags.get(f"stage.{stage}")
    if state in ("running", "failed", "interrupted"):
        # Under other code it starts afresh, and two trainings must not share a curve.
        return tags.get(f"inputs.{stage}") == pipeline.inputs(stage)
    if state == "reused":
        # Filled in a moment ago, and now forced to run: `dvc repro --force`.
        return tags.get("execution") == execution
    return state is None
