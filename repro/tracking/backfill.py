"""Runs for results that no process tracked: DVC's cache hits, and experiments from elsewhere.

A stage that DVC skips runs no process, so nothing logs it. `gpt ui` calls this before it opens the
pages: it begins the runs that the working folder and DVC's experiments lack, and completes those
that stopped half-way. The working folder must be the root.
"""

import platform
import time
from typing import Any

from repro import dvc_internals
from repro.lockfile import Pipeline
from repro.params import parse_yaml
from repro.project import AnyParams, Project
from repro.repository import Commit, WorkingFolder, git
from repro.tracking.contents import key_of
from repro.tracking.store import Store
from repro.tracking.stored_run import DONE, StoredRun
from repro.tracking.tags import clone_id, is_alive, tags_of_run


def experiment_commits() -> list[tuple[str, str]]:
    """DVC's experiments as (commit, name), from the oldest on."""
    form = "--format=%(objectname) %(refname)"
    listed = git("for-each-ref", "--sort=committerdate", form, dvc_internals.EXPERIMENT_REFS)
    return dvc_internals.experiments((listed or b"").decode())


def backfill_runs(project: Project[Any], store: Store) -> int:
    """Adds and completes runs; returns how many are new."""
    end_dead_runs(store)
    added = 0
    for commit, name in [("", ""), *experiment_commits()]:
        files = Commit(commit) if commit else WorkingFolder()
        try:
            text = (files.read("params.yaml") or b"").decode()
            values = parse_yaml(text)
            params = project.parse_older(text) if commit else project.load()
        except UnicodeDecodeError:
            continue
        except project.faults:
            continue  # of a version of this project that cannot be read any more
        added += _backfill(store, Pipeline(files, values), params, name, commit)
    return added


def _backfill(
    store: Store, pipeline: Pipeline, params: AnyParams, experiment: str, commit: str
) -> bool:
    """Adds or completes the run of `pipeline`'s results; whether one was added."""
    stages = pipeline.valid()
    if pipeline.model_md5() is None:
        return False
    at = int(time.time() * 1000)
    if commit:
        at = 1000 * int(git("show", "-s", "--format=%ct", commit) or at // 1000)
    run = _run_of(store, pipeline, params, experiment)
    if run is not None:
        run.define(pipeline.files, params)
        lost = any(run.tags.get(f"stage.{stage}") not in DONE for stage in stages)
        # An experiment does not change, and there may be hundreds: only what is missing is sent.
        if lost or not commit:
            run.complete(pipeline, stages)
        if lost and stages == list(pipeline.stages):
            # The last stage could not write to the store.
            store.client.set_terminated(run.id, "FINISHED", end_time=at)
        return False
    if _run_of(store, pipeline, params, experiment, deleted=True):
        return False  # by hand: it must not come back
    base = f"{commit}^" if commit else "HEAD"
    tags = tags_of_run(params, experiment or None, pipeline.files, base)
    tags |= {"pipeline.key": key_of(params, experiment or None), "clone": clone_id()}
    if commit:
        tags["mlflow.source.git.commit"] = commit
    run = StoredRun.begin(store, pipeline.files, params, tags, at)
    run.complete(pipeline, stages)
    store.client.set_terminated(run.id, "FINISHED", end_time=at)
    return True


def _run_of(
    store: Store, pipeline: Pipeline, params: AnyParams, experiment: str, *, deleted: bool = False
) -> StoredRun | None:
    """The newest run, or deleted one, with these params and this model, of whatever experiment.

    One that has no model yet may still be training: of another clone it is left alone.
    """
    clone, model = clone_id(), pipeline.model_md5()
    digest = key_of(params, None).partition(":")[2]
    for run in store.search(f"tags.`pipeline.key` LIKE '%:{digest}'", limit=50, deleted=deleted):
        tags = run.data.tags
        if tags.get("model.md5") == model or (
            not deleted and "model.md5" not in tags and tags.get("clone") == clone
        ):
            return StoredRun(store, run)
    # An earlier version, which had other params, gave it another key.
    if not experiment:
        return None
    for run in store.search(f"tags.`model.md5` = '{model}'", limit=50, deleted=deleted):
        if run.data.tags.get("dvc.exp_name") == experiment:
            return StoredRun(store, run)
    return None


def end_dead_runs(store: Store) -> None:
    """Ends runs that say `running` though their process was killed on this machine."""
    for run in store.search("attributes.status = 'RUNNING'", limit=200):
        execution = run.data.tags.get("execution", "")
        here = run.data.tags.get("host") == platform.node()
        if execution and here and not is_alive(execution):
            store.client.set_terminated(run.info.run_id, "KILLED")
