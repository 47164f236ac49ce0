"""A queue of experiments in which things go wrong, and its recovery as docs/reliability.md says.

    SOAK=20 python -m pytest -s tests/pipeline/test_soak.py     # the whole; CI has four experiments

Two of DVC's workers share a grid of four trainings with several sampling temperatures each. On the
way one worker is killed with all that it runs, and the tracking database is locked for 30 s.
"""

import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import yaml
from pipeline_clone import Clone, assert_complete, tracked_runs, wait_for

LOCKED_SECONDS = 30
AN_EXPERIMENT = 300  # seconds at most, on a busy machine


class Queue:
    """The queue of a clone, as its user sees and steers it."""

    def __init__(self, clone: Clone) -> None:
        self.clone = clone

    def add(self, *words: str) -> None:
        self.clone.dvc("exp", "run", "--queue", *words)

    def start(self) -> None:
        """Starts the workers that do not run: both, or the one that was killed."""
        # Workers keep what they inherit: a pipe to this process would stay open until they end.
        command = ["dvc", "queue", "start", "-j", "2"]
        where = {"cwd": self.clone.folder, "env": self.clone.environment()}
        subprocess.run(command, **where, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def workers(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._is_worker(process)]

    def _is_worker(self, process: psutil.Process) -> bool:
        try:
            here = process.cwd() == str(self.clone.folder)
            return here and "queue-worker" in process.cmdline()
        except psutil.Error:
            return False

    def experiments(self) -> dict[str, tuple[int, float]]:
        """{name: (seed, temperature)} of those that are done."""
        found = {}
        for ref in self.clone.git("for-each-ref", "refs/exps", "--format", "%(refname)").split():
            if re.match(r"refs/exps/[0-9a-f]{2}/", ref):
                params = yaml.safe_load(self.clone.git("show", f"{ref}:params.yaml"))
                found[ref.rpartition("/")[2]] = (params["seed"], params["sample"]["temperature"])
        return found

    def run_to_its_end(self, number: int) -> None:
        """Until so many experiments are done. A worker that DVC lost itself is started again."""
        deadline = time.monotonic() + number * AN_EXPERIMENT
        while len(self.experiments()) < number:
            assert time.monotonic() < deadline, self.clone.dvc("queue", "status")
            if not self.workers():
                self.start()
            time.sleep(1)

    def stop(self) -> None:
        for worker in self.workers():
            for process in (worker, *worker.children(recursive=True)):
                process.kill()


def saved_step(folder: Path) -> int:
    return max((int(path.name[5:]) for path in folder.glob("step_*")), default=0)


def kill_a_worker_that_trains(clone: Clone) -> tuple[str, int]:
    """Kills a worker and all it runs; returns its training's fingerprint and saved step."""
    scratch = clone.folder / ".cache/train"
    wait_for(lambda: any(saved_step(folder) > 3 for folder in scratch.glob("*")), AN_EXPERIMENT)
    folder = max(scratch.glob("*"), key=saved_step)
    trainer = psutil.Process(int(folder.with_suffix(".pid").read_text(encoding="utf-8")))
    worker = next(p for p in trainer.parents() if "queue-worker" in p.cmdline())
    for process in (worker, *worker.children(recursive=True)):
        process.kill()
    return folder.name, saved_step(folder)


def lock_the_database(clone: Clone) -> None:
    with closing(sqlite3.connect(clone.folder / "mlflow.db", timeout=60)) as database:
        database.execute("BEGIN EXCLUSIVE")
        time.sleep(LOCKED_SECONDS)
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
    asked = {(seed, temperature) for temperature in temperatures for seed in (1, 2, 3, 4)}
    clone = make_clone(runtime__tracking="true", runtime__checkpoint_every="1")
    clone.dvc("repro", "tokenize")  # workers do not share a stage that neither has run
    clone.commit("tokens")
    queue = Queue(clone)
    # Seeds vary first, so that the two workers do not begin the same training.
    queue.add("-S", f"sample.temperature={','.join(map(str, temperatures))}", "-S", "seed=1,2,3,4")
    queue.start()
    try:
        fingerprint, step = kill_a_worker_that_trains(clone)
        queue.start()
        lock_the_database(clone)
        queue.run_to_its_end(len(asked) - 1)
        wait_for(lambda: not queue.workers())

        # What was killed says Running for ever; this is what docs/reliability.md says to do.
        (name,) = re.findall(r"(\S+)\s+\S+ \w\w\s+Running", clone.dvc("queue", "status"))
        (missing,) = asked - set(queue.experiments().values())
        clone.dvc("queue", "kill", name)
        clone.dvc("queue", "remove", name)
        seed, temperature = missing
        queue.add("--name", name, "-S", f"seed={seed}", "-S", f"sample.temperature={temperature}")
        queue.start()
        queue.run_to_its_end(len(asked))
        wait_for(lambda: not queue.workers())
    finally:
        queue.stop()

    # Every experiment is there, once.
    assert sorted(queue.experiments().values()) == sorted(asked)
    # The killed training went on from its state, under whichever experiment came first.
    logs = [path.read_text("utf-8") for path in clone.folder.glob(".dvc/tmp/exps/run/*/*.out")]
    resumed = [int(n) for log in logs for n in re.findall(r"going on from step (\d+)", log)]
    assert len(resumed) == 1 and step <= resumed[0] <= 40
    assert not list(clone.folder.glob(".cache/train/*/step_*"))
    models = {
        (which, clone.experiment_outs(found)["data/model"])
        for found, (which, _) in queue.experiments().items()
    }
    assert len(models) == 4, "a model for each seed, the same at every temperature"
    clone.dvc("exp", "run", "--force", "-S", f"seed={seed}", "--name", "undisturbed")
    assert (seed, clone.experiment_outs("undisturbed")["data/model"]) in models

    # Each has one row, complete; `gpt ui` fills in what the lock kept out.
    print(clone.run(sys.executable, "-m", "commands.cli", "ui", "--no-serve"))
    found = [row for row in tracked_runs(clone) if row["params"]["sample.temperature"] != "0.7"]
    for row in found:
        assert_complete(row, timed=False)
    assert sorted(
        (int(row["params"]["seed"]), float(row["params"]["sample.temperature"])) for row in found
    ) == sorted(asked)
    print(
        f"{len(asked)} experiments, a worker killed (training {fingerprint} after step {step}, "
        f"resumed from {resumed[0]}), the database locked for {LOCKED_SECONDS} s: complete, "
        f"nothing doubled ({time.monotonic() - begun:.0f} s)"
    )
