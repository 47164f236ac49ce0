"""DVC's queue of experiments in a clone, as its user sees and steers it."""

import json
import re
import subprocess
import sys
import time

import psutil
import yaml
from pipeline_clone import Clone

SECONDS_PER_EXPERIMENT = 300  # at most, on a busy machine


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

    def status(self) -> dict[str, str]:
        """{name: Queued, Running, Success or Failed}."""
        code = """
import json
from dvc.repo import Repo

entries = Repo().experiments.celery_queue.status()
print("STATUS" + json.dumps({entry["name"]: entry["status"] for entry in entries}))
"""
        output = self.clone.run(sys.executable, "-W", "ignore", "-c", code)
        return dict(json.loads(output.split("STATUS", 1)[1]))

    def logs(self) -> str:
        """What the experiments have said by now."""
        return "\n".join(
            path.read_text(encoding="utf-8", errors="replace")
            for path in self.clone.folder.glob(".dvc/tmp/exps/run/*/*.out")
        )

    def experiments(self) -> dict[str, tuple[int, float]]:
        """{name: (seed, temperature)} of those that are done."""
        done = {}
        for ref in self.clone.git("for-each-ref", "refs/exps", "--format", "%(refname)").split():
            if re.match(r"refs/exps/[0-9a-f]{2}/", ref):
                params = yaml.safe_load(self.clone.git("show", f"{ref}:params.yaml"))
                done[ref.rpartition("/")[2]] = (params["seed"], params["sample"]["temperature"])
        return done

    def run_to_its_end(self, number: int) -> None:
        """Returns once `number` experiments are done; starts workers that DVC lost again."""
        deadline = time.monotonic() + number * SECONDS_PER_EXPERIMENT
        while len(self.experiments()) < number:
            assert time.monotonic() < deadline, self.clone.dvc("queue", "status")
            if not self.workers():
                self.start()
            time.sleep(0.2)

    def stop(self) -> None:
        for worker in self.workers():
            for process in (worker, *worker.children(recursive=True)):
                process.kill()
