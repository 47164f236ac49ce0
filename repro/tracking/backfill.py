"""Rows for results that no process made: DVC's cache hits, and experiments from elsewhere.

A stage that DVC skips runs no process, so nobody writes its row. `gpt ui` calls this before it
opens the pages: it looks at the working folder and at every DVC experiment, begins the rows that
are missing, and completes those that stopped half-way. The working folder must be the root.
"""

import platform
import re
import time

import psutil

from gpt.errors import ParamsError
from repro.tracking.contents import Commit, Files, Pipeline, WorkingFolder, git, key_of
from repro.tracking.store import DONE, RowOfStore, Store, clone_id, tags_of_row
from stages.params import Params, parse

EXPERIMENT_REF = re.compile(r"(\w+) refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/(.+)")


def add_missing_rows(store: Store) -> int:
    """Adds and completes rows; returns how many are new."""
    end_rows_of_the_dead(store)
    added = int(_add(store, WorkingFolder(), None, None))
    listed = (git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps") or b"").decode()
    for commit, name in EXPERIMENT_REF.findall(listed):
        added += _add(store, Commit(commit), name, commit)
    return added


def _add(store: Store, files: Files, experiment: str | None, commit: str | None) -> bool:
    """A row for the results in `files`, where they have none; whether one was added."""
    text = files.read("params.yaml")
    try:
        params = parse((text or b"").decode())
    except (ParamsError, UnicodeDecodeError):
        return False  # of another version of this project
    # An experiment is committed with the inputs it was made from; they need not be hashed again.
    pipeline = Pipeline(files, params, trust_inputs=commit is not None)
    stages = pipeline.valid()
    if pipeline.model_md5() is None:
        return False
    at = int(time.time() * 1000)
    if commit is not None:
        at = 1000 * int(git("show", "-s", "--format=%ct", commit) or at // 1000)
    row = _row_of(store, pipeline, params)
    if row is not None:
        lost = any(row.tags.get(f"stage.{stage}") not in DONE for stage in stages)
        # An experiment does not change, and there may be hundreds: only what is missing is sent.
        if lost or commit is None:
            row.complete(pipeline, stages)
        if lost and stages == list(pipeline.stages):
            # The last stage could not write to the store.
            store.client.set_terminated(row.id, "FINISHED", end_time=at)
        return False
    tags = tags_of_row(params, experiment)
    tags |= {"pipeline.key": key_of(params, experiment), "clone": clone_id()}
    if commit is not None:
        tags["mlflow.source.git.commit"] = commit
    row = RowOfStore.begin(store, files, params, tags, at)
    row.complete(pipeline, stages)
    store.client.set_terminated(row.id, "FINISHED", end_time=at)
    return True


def _row_of(store: Store, pipeline: Pipeline, params: Params) -> RowOfStore | None:
    """The newest row with these params and this model, of whatever experiment.

    One that has no model yet may be of a training that runs: of another clone it is left alone.
    """
    mine, model = clone_id(), pipeline.model_md5()
    digest = key_of(params, None).partition(":")[2]
    for run in store.search(f"tags.`pipeline.key` LIKE '%:{digest}'", limit=50):
        tags = run.data.tags
        if tags.get("model.md5") == model or (
            "model.md5" not in tags and tags.get("clone") == mine
        ):
            return RowOfStore(store, run)
    return None


def end_rows_of_the_dead(store: Store) -> None:
    """Rows that say `running` though their process was killed on this machine."""
    for run in store.search("attributes.status = 'RUNNING'", limit=200):
        pid, _, created = run.data.tags.get("execution", "").partition("-")
        if not pid or run.data.tags.get("host") != platform.node():
            continue
        try:
            alive = f"{psutil.Process(int(pid)).create_time():.2f}" == created
        except psutil.Error:
            alive = False
        if not alive:
            store.client.set_terminated(run.info.run_id, "KILLED")
