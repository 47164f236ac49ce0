"""A queue of experiments in which things go wrong, and its recovery as docs/reliability.md says.

    SOAK=20 python -m pytest -s tests/pipeline/test_soak.py     # the whole; CI has four experiments

Two of DVC's workers share a grid of four trainings with several sampling temperatures each. On the
way one worker is killed with all that it runs, and the tracking database is locked until a
stage gives up on it.
"""

import os
import re
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing

import psutil
import pytest
from experiment_queue import SECONDS_PER_EXPERIMENT, Queue
from pipeline_clone import Clone, assert_complete, saved_step, tracked_runs
from waiting import wait_for


def kill_a_worker_that_trains(clone: Clone) -> tuple[str, int]:
    """Kills a worker and all it runs; returns its training's fingerprint and saved step."""
    scratch = clone.folder / ".cache/train"
    wait_for(
        lambda: any(saved_step(folder) > 3 for folder in scratch.glob("*")), SECONDS_PER_EXPERIMENT
    )
    folder = max(scratch.glob("*"), key=saved_step)
    trainer = psutil.Process(int(folder.with_suffix(".pid").read_text(encoding="utf-8")))
    worker = next(p for p in trainer.parents() if "queue-worker" in p.cmdline())
    for process in (worker, *worker.children(recursive=True)):
        process.kill()
    return folder.name, saved_step(folder)


def lock_the_database(clone: Clone, queue: Queue) -> None:
    """Locks it until a stage has given up on it."""
    with closing(sqlite3.connect(clone.folder / "mlflow.db", timeout=60)) as database:
        database.execute("BEGIN EXCLUSIVE")
        wait_for(lambda: re.search("tracking: .*locked", queue.logs()), SECONDS_PER_EXPERIMENT)
        database.rollback()


@pytest.mark.slow
@pytest.mark.fault(1)
@pytest.mark.fault(13)
@pytest.mark.timeout(7200)
def test_a_queue_with_a_killed_worker_and_a_locked_database_ends_complete_and_nothing_doubled(
    make_clone: Callable[..., Clone],
) -> None:
    begun = time.monotonic()
    temperatures = [0.5 + n / 100 for n in range(int(os.environ.get("SOAK", "4")) // 4)]
    expected = {(seed, temperature) for temperature in temperatures for seed in (1, 2, 3, 4)}
    # Workers do not share a stage that neither has run.
    clone = make_clone(tokens=True, runtime__tracking="true", runtime__checkpoint_every="1")
    queue = Queue(clone)
    # Seeds vary first, so that the two workers do not begin the same training.
    queue.add("-S", f"sample.temperature={','.join(map(str, temperatures))}", "-S", "seed=1,2,3,4")
    queue.start()
    try:
        fingerprint, step = kill_a_worker_that_trains(clone)
        queue.start()
        lock_the_database(clone, queue)
        queue.run_to_its_end(len(expected) - 1)
        wait_for(lambda: not queue.workers())

        # What was killed says Running for ever; this is what docs/reliability.md says to do.
        (name,) = (name for name, state in queue.status().items() if state == "Running")
        (missing,) = expected - set(queue.experiments().values())
        clone.dvc("queue", "kill", name)
        clone.dvc("queue", "remove", name)
        seed, temperature = missing
        queue.add("--name", name, "-S", f"seed={seed}", "-S", f"sample.temperature={temperature}")
        queue.start()
        queue.run_to_its_end(len(expected))
        wait_for(lambda: not queue.workers())
    finally:
        queue.stop()

    # Every experiment is there, once.
    assert sorted(queue.experiments().values()) == sorted(expected)
    # The killed training went on from its state, under whichever experiment came first.
    resumed = [int(n) for n in re.findall(r"resuming from step (\d+)", queue.logs())]
    assert len(resumed) == 1 and step <= resumed[0] <= 40
    assert not list(clone.folder.glob(".cache/train/*/step_*"))
    models = {
        (which, clone.experiment_outs(name)["data/model"])
        for name, (which, _) in queue.experiments().items()
    }
    assert len(models) == 4, "a model for each seed, the same at every temperature"
    clone.dvc("exp", "run", "--force", "-S", f"seed={seed}", "--name", "undisturbed")
    assert (seed, clone.experiment_outs("undisturbed")["data/model"]) in models

    # Each has one row, complete; `gpt ui` fills in what the lock kept out.
    print(clone.run(sys.executable, "-m", "commands.cli", "ui", "--no-serve"))
    runs = [run for run in tracked_runs(clone) if run["params"]["sample.temperature"] != "0.7"]
    for run in runs:
        assert_complete(run, timed=False)
    assert sorted(
        (int(run["params"]["seed"]), float(run["params"]["sample.temperature"])) for run in runs
    ) == sorted(expected)
    print(
        f"{len(expected)} experiments, a worker killed (training {fingerprint} after step {step}, "
        f"resumed from {resumed[0]}), the database locked: complete, "
        f"nothing doubled ({time.monotonic() - begun:.0f} s)"
    )
