"""One run in MLflow: writes points, figures and files to it, and only what it does not hold yet."""

import tempfile
import time
from pathlib import Path
from typing import Any

from repro.lockfile import Pipeline
from repro.project import Params
from repro.repository import Files
from repro.tracking import contents, mlflow_internals
from repro.tracking.contents import Point
from repro.tracking.store import Store

DONE = ("done", "reused")  # values of the tag stage.NAME; else running, failed or interrupted


class StoredRun:
    """A run of MLflow, and what it already holds."""

    def __init__(self, store: Store, run: Any) -> None:
        self.store, self.client = store, store.client
        self.id: str = run.info.run_id
        self.tags: dict[str, str] = dict(run.data.tags)
        self.metrics: dict[str, float] = dict(run.data.metrics)
        self._defined = bool(run.data.params)
        self._steps: dict[str, set[int]] = {}

    @classmethod
    def begin(
        cls, store: Store, files: Files, params: Params, tags: dict[str, str], at: int | None = None
    ) -> "StoredRun":
        """A new run with all params and the files that define it, as of `at` (ms) or now."""
        created = store.client.create_run(
            store.experiment, start_time=at, tags=tags, run_name=tags.get("mlflow.runName")
        )
        run = cls(store, created)
        run.define(files, params)
        return run

    def define(self, files: Files, params: Params) -> None:
        """Logs the params and the files that define the run, where it has none.

        MLflow makes a run without params: whatever fails between leaves one that the next stage
        joins, or `gpt ui` completes.
        """
        from mlflow.entities import Param

        if self._defined:
            return
        for name in ("params.yaml", "dvc.yaml"):
            self.put_file(name, files.read(name))
        # Last, and all in one: a run that has any has everything.
        all_params = [Param(key, value) for key, value in contents.params_of_run(params).items()]
        self.client.log_batch(self.id, params=all_params)
        self._defined = True

    def put_file(self, path: str, content: bytes | None) -> None:
        if content is None:
            return
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / Path(path).name
            file.write_bytes(content)
            self.client.log_artifact(self.id, str(file), path.rpartition("/")[0] or None)

    def write(self, points: list[Point]) -> None:
        """Sends points of curves, but no step that the run has already."""
        new = []
        for name, step, value in points:
            # A speed has no steps: the last part of an interrupted training counts.
            if name.startswith("time/") or step not in self._steps_of(name):
                self._steps_of(name).add(step)
                new.append((name, step, value))
        self._send(new, {})

    def replace(self, values: dict[str, float], tags: dict[str, str] | None = None) -> None:
        """Sends figures that have no steps, of which the latest counts; and tags."""
        new = [(name, 0, v) for name, v in values.items() if self.metrics.get(name) != v]
        self._send(new, tags or {})

    def _send(self, points: list[Point], tags: dict[str, str]) -> None:
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, step, value in points]
        new_tags = [RunTag(k, tag[:8000]) for k, tag in tags.items() if self.tags.get(k) != tag]
        # MLflow takes 1,000 entities at a time.
        for start in range(0, len(metrics), 900):
            self.client.log_batch(self.id, metrics=metrics[start : start + 900])
        if new_tags:
            self.client.log_batch(self.id, tags=new_tags)
        self.metrics |= {name: value for name, _, value in points}
        self.tags |= tags

    def _steps_of(self, name: str) -> set[int]:
        if name not in self._steps:
            known = self.client.get_metric_history(self.id, name) if name in self.metrics else []
            self._steps[name] = {metric.step for metric in known}
        return self._steps[name]

    def complete(self, pipeline: Pipeline, stages: list[str]) -> None:
        """Fills in those of `stages` that the run does not hold yet, from their results."""
        for stage in stages:
            state = self.tags.get(f"stage.{stage}")
            if state not in DONE:
                # A stage that was killed here, or lost its tracking, did run for this run.
                self.fill(pipeline, stage, "done" if state else "reused")
        if pipeline.model_md5():
            self._copy_times(pipeline)
        self.put_file("dvc.lock", pipeline.files.read("dvc.lock"))

    def fill(self, pipeline: Pipeline, stage: str, state: str) -> None:
        """Metrics, curves, pages, samples and dataset of one stage, from its files."""
        curves = contents.curves(pipeline, stage)
        # `train/loss` is a curve's, should a metrics file have it too.
        names = {name for name, _, _ in curves}
        metrics = contents.metrics(pipeline, stage)
        tags = {f"stage.{stage}": state}
        made = {kind: self._made(pipeline, stage, kind) for kind in ("model", "samples", "dataset")}
        if made["model"] and (model := pipeline.model_md5()):
            tags["model.md5"] = model
        for path, content in contents.pages(pipeline, stage).items():
            self.put_file(path, content)
        samples = made["samples"] and not self._has("samples.json") and contents.samples(pipeline)
        if samples:
            self.client.log_table(self.id, samples, "samples.json")
        if made["dataset"]:
            self._log_dataset(pipeline)
        self.write(curves)
        # The tag last: what it says must be there.
        self.replace({name: metrics[name] for name in metrics if name not in names}, tags)

    def _made(self, pipeline: Pipeline, stage: str, kind: str) -> bool:
        path = pipeline.artifact(kind).get("path")
        return path is not None and pipeline.maker(path) == stage

    def _has(self, path: str) -> bool:
        return any(file.path == path for file in self.client.list_artifacts(self.id))

    def _log_dataset(self, pipeline: Pipeline) -> None:
        artifact = pipeline.artifact("dataset")
        digest = pipeline.out_md5(artifact["path"])
        if digest is not None:
            dataset = mlflow_internals.dataset_input(artifact["path"], artifact.get("desc"), digest)
            self.client.log_inputs(self.id, [dataset])

    def _copy_times(self, pipeline: Pipeline) -> None:
        """How long the reused model took, from the run that trained it."""
        maker = pipeline.maker(pipeline.artifact("model")["path"])
        stages = (maker, *sorted(pipeline.upstream(maker)))
        reused = [stage for stage in stages if self.tags.get(f"stage.{stage}") == "reused"]
        missing = [f"time/{stage}_s" for stage in reused if f"time/{stage}_s" not in self.metrics]
        if not missing:
            return
        all_stages = {f"time/{stage}_s" for stage in pipeline.stages}
        for donor in self.store.search(f"tags.`model.md5` = '{pipeline.model_md5()}'", limit=50):
            times = {k: v for k, v in donor.data.metrics.items() if k.startswith("time/")}
            if donor.info.run_id != self.id and f"time/{maker}_s" in times:
                # Speeds, such as tokens per second, are the model's.
                speeds = times.keys() - all_stages - self.metrics.keys() if maker in reused else ()
                self.replace({name: times[name] for name in (*missing, *speeds) if name in times})
                return
