"""A training of a second, run by the real stages, to be killed, starved and deceived.

A `SmallTraining` is a folder in which `python -m stages.NAME` runs: the repository's own code and
dvc.yaml, params of its own. No dvc takes part: `start` deletes a stage's results beforehand, as
DVC does. A stage runs as a process of its own, forked from a server that has imported torch and
computed nothing, since the import alone would take ten times as long as the training. `plain`
starts one the usual way.
"""

import hashlib
import multiprocessing
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file
from trial_repository import write_lock

REPOSITORY = Path(__file__).resolve().parent.parent
STEPS = 30
RESULTS = {
    "prepare": ("data/corpus", "metrics/prepare.json"),
    "tokenize": ("data/tokens", "metrics/tokenize.json"),
    "train": ("data/model", "metrics/train.json", "metrics/curves/train.csv"),
    "evaluate": ("metrics/evaluate.json",),
    "sample": ("data/samples", "metrics/samples.md", "metrics/sample.json"),
}
PARAMS: dict[str, Any] = {
    "preset": "tiny",
    "data.verse_bytes": 30_000,
    "model.n_layer": 1,
    "model.n_head": 1,
    "model.n_embd": 16,
    "model.block_size": 16,
    "model.dropout": 0.1,
    "train.steps": STEPS,
    "train.batch_size": 4,
    "train.warmup_steps": 5,
    "train.eval_every": 10,
    "train.eval_tokens": 256,
    "train.device": "cpu",
    "train.dtype": "float32",
    "train.threads": 1,
    "runtime.tracking": False,
    "runtime.sample_tokens": 0,
    "runtime.checkpoint_every": 1,
    "runtime.checkpoint_seconds": 0,
}

# Libraries alone: which code of our own is run is for each process to say.
PRELOADED = ["torch", "torch._dynamo", "pandas", "pydantic.fields", "safetensors.torch", "filelock"]
if os.name == "posix":
    SERVER = multiprocessing.get_context("forkserver")
    SERVER.set_forkserver_preload(PRELOADED)
else:
    SERVER = multiprocessing.get_context("spawn")
# tqdm has a semaphore in each process; who is killed leaves it, and Python's tracker complains.
os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
# A kill loses nothing that was written, whatever the file system; one in memory syncs at once.
MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None  # noqa: S108


class Run:
    """A stage that runs, or ran."""

    def __init__(self, process: Any, shown: Path) -> None:
        self.process, self._shown = process, shown
        self.pid: int = process.pid

    def end(self, seconds: float = 120) -> int:
        """Waits for it; its exit code, negative for a signal."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still runs: {self.output()}"
        return int(self.process.exitcode)

    def running(self) -> bool:
        return bool(self.process.is_alive())

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def output(self) -> str:
        return self._shown.read_text(encoding="utf-8", errors="replace")

    def last_line(self) -> str:
        return (self.output().strip().splitlines() or [""])[-1]


class SmallTraining:
    """The folder; `prepare` and `tokenize` have run in it."""

    def __init__(self, folder: Path, **params: Any) -> None:
        self.folder = folder
        (folder / ".dvc").mkdir(parents=True)
        for name in ("gpt", "repro", "stages", "verse", "dvc.yaml", "pyproject.toml"):
            (folder / name).symlink_to(REPOSITORY / name)
        (folder / "data").mkdir()
        (folder / "data/prompt.txt").touch()
        self._runs = 0
        self.params: dict[str, Any] = yaml.safe_load(
            (REPOSITORY / "params.yaml").read_text(encoding="utf-8")
        )
        self.set(**{key.replace(".", "__"): value for key, value in PARAMS.items()}, **params)

    def set(self, **values: Any) -> None:
        """Writes params.yaml with some keys changed; `__` stands for a dot."""
        for key, value in values.items():
            section, _, name = key.rpartition("__")
            keys = self.params[section] if section else self.params
            assert name in keys, key
            keys[name] = value
        text = yaml.safe_dump(self.params, allow_unicode=True)
        (self.folder / "params.yaml").write_text(text, encoding="utf-8")

    def clone(self, folder: Path) -> "SmallTraining":
        """A training in `folder` with the same corpus and tokens."""
        clone = SmallTraining(folder)
        clone.params = yaml.safe_load((self.folder / "params.yaml").read_text(encoding="utf-8"))
        clone.set()
        for name in ("corpus", "tokens"):
            shutil.copytree(self.folder / "data" / name, folder / "data" / name)
        return clone

    def start(self, stage: str = "train", before: Callable[[], object] | None = None) -> Run:
        """Starts a stage as DVC does; `before` is called in its process, ahead of it."""
        self._delete(stage)
        self._runs += 1
        shown = self.folder / f"output-{self._runs}"
        shown.touch()
        process = SERVER.Process(target=_enter, args=(stage, self.folder, shown, before))
        process.start()
        return Run(process, shown)

    def run(self, stage: str = "train", before: Callable[[], object] | None = None) -> Run:
        """A stage to its end, whichever that is."""
        run = self.start(stage, before)
        run.end()
        return run

    def plain(
        self, stage: str, seconds: float = 120, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """A stage as `python -m stages.NAME`, to its end, which must come within `seconds`."""
        self._delete(stage)
        return subprocess.run(
            [sys.executable, "-m", f"stages.{stage}"],
            cwd=self.folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=seconds,
        )

    def make_tokens(self) -> None:
        for stage in ("prepare", "tokenize"):
            run = self.run(stage)
            assert run.end() == 0, run.output()

    def finish(self, stages: Sequence[str]) -> None:
        """Runs `stages` and writes dvc.lock as DVC does; the folder must be the present one."""
        (self.folder / "data/own").mkdir()
        (self.folder / "data/own/text.txt").write_text("Own text.\n", encoding="utf-8")
        for stage in stages:
            run = self.run(stage)
            assert run.end() == 0, run.output()
            write_lock(self.folder, stage)

    def _delete(self, stage: str) -> None:
        for name in RESULTS[stage]:
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def states(self) -> list[Path]:
        """The saved states, the oldest first."""
        return sorted(self.folder.glob(".cache/train/*/step_*"))

    def newest(self) -> int:
        """The step of the newest saved state; 0 where there is none."""
        return max((int(path.name[5:]) for path in self.states()), default=0)

    def hashes(self) -> dict[str, str]:
        """The sha256 of every file that the training wrote."""
        names = ("model.safetensors", "config.json", "tokenizer.json")
        files = [self.folder / "data/model" / name for name in names]
        files += [self.folder / name for name in RESULTS["train"][1:]]
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def resumed_from(output: str) -> int:
    """The step from which a training says that it resumed; 0 where it started anew."""
    match = re.search(r"resuming from step (\d+)", output)
    return int(match[1]) if match else 0


def largest_difference(first: SmallTraining, second: SmallTraining) -> float:
    """The largest difference between two weights of two models."""
    a, b = (load_file(t.folder / "data/model/model.safetensors") for t in (first, second))
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def _enter(stage: str, folder: Path, shown: Path, before: Callable[[], object] | None) -> None:
    """What the process of a stage does: as `python -m stages.NAME`, with its output in a file."""
    os.chdir(folder)
    for name in [name for name in os.environ if name.startswith(("DVC_", "MLFLOW_"))]:
        del os.environ[name]
    with shown.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    sys.path.insert(0, str(folder))
    sys.argv = [stage]
    if before is not None:
        before()
    runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
