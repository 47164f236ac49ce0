"""The pipeline as a user runs it: dvc and git in a fresh clone, with params that train in seconds.

Every clone lies in a temporary folder; results are compared by the hashes in dvc.lock.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from copy import copy
from pathlib import Path

import yaml

from repro.tracking.store import sqlite_uri

REPOSITORY = Path(__file__).resolve().parent.parent

SMALL = {
    "data.verse_bytes": "60000",
    "train.steps": "40",
    "train.batch_size": "8",
    "train.eval_every": "20",
    "train.eval_tokens": "1024",
    "train.threads": "1",
    "model.n_layer": "1",
    "model.n_embd": "32",
    "model.block_size": "32",
    "sample.num_samples": "2",
    "sample.max_new_tokens": "60",
    "runtime.tracking": "false",
}


def set_params(folder: Path, values: dict[str, str]) -> None:
    """Edits params.yaml as a user does, line by line, comments kept."""
    path = folder / "params.yaml"
    lines = path.read_text(encoding="utf-8").split("\n")
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        inside = ""
        for index, line in enumerate(lines):
            if top := re.match(r"(\w+):", line):
                inside = top[1] if not line.split(":", 1)[1].split("#")[0].strip() else ""
            prefix = rf"  {name}:" if section else rf"{name}:"
            if line.startswith(prefix) and inside == section:
                comment = line.split("#", 1)[1] if "#" in line else ""
                lines[index] = f"{prefix} {value}  #{comment}"
                break
        else:
            raise KeyError(key)
    path.write_text("\n".join(lines), encoding="utf-8")


class Clone:
    """A fresh copy of the repository, under git, with its own cache."""

    def __init__(self, folder: Path, files: list[Path], params: dict[str, str]) -> None:
        self.folder = folder
        for file in files:
            target = folder / file.relative_to(REPOSITORY)
            if file.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        # What a fresh clone has of earlier runs would let DVC skip a stage.
        (folder / "dvc.lock").unlink(missing_ok=True)
        shutil.rmtree(folder / "metrics", ignore_errors=True)
        set_params(folder, params)
        self.git("init", "-q", "-b", "main")
        self.commit("begin")

    def checked_out_as_on_windows(self, folder: Path) -> "Clone":
        """A clone of this one by a git that writes CRLF wherever .gitattributes lets it."""
        self.git("clone", "-q", "-c", "core.autocrlf=true", ".", str(folder))
        clone = copy(self)
        clone.folder = folder
        return clone

    def environment(self, **more: str) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
        return kept | {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"} | more

    def run(self, *command: str, check: bool = True, **environment: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
            stdin=subprocess.DEVNULL,
        )
        self.code = done.returncode
        assert not check or done.returncode == 0, done.stdout
        return done.stdout

    def git(self, *words: str) -> str:
        return self.run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", *words)

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def dvc(self, *words: str, check: bool = True, **environment: str) -> str:
        return self.run("dvc", *words, check=check, **environment)

    def take_tokens(self, source: "Clone") -> None:
        """Takes over what `dvc repro tokenize` wrote in `source`, as if it had run here."""
        for name in (".dvc/cache", "data/corpus", "data/tokens", "metrics"):
            shutil.copytree(source.folder / name, self.folder / name, dirs_exist_ok=True)
        shutil.copyfile(source.folder / "dvc.lock", self.folder / "dvc.lock")
        self.commit("tokens")

    def touch_params(self) -> None:
        """Lets git see that params.yaml has changed.

        DVC writes an override and git's index within a second; where the file kept its size, git,
        which compares whole seconds, then takes it for unchanged. A stage that fails sees to it
        itself; where DVC failed before any stage, README tells users.
        """
        os.utime(self.folder / "params.yaml", (1, 1))

    def lock(self) -> str:
        return (self.folder / "dvc.lock").read_text(encoding="utf-8")

    def outs(self) -> dict[str, str]:
        """The hash of every output."""
        stages = yaml.safe_load(self.lock())["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}

    def experiment_outs(self, name: str) -> dict[str, str]:
        """The hash of every output of a DVC experiment."""
        refs = self.git("for-each-ref", "refs/exps", "--format", "%(refname)").split()
        (ref,) = [ref for ref in refs if ref.endswith(f"/{name}")]
        stages = yaml.safe_load(self.git("show", f"{ref}:dvc.lock"))["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}

    def metrics(self, name: str) -> dict:
        return json.loads((self.folder / f"metrics/{name}.json").read_text(encoding="utf-8"))


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


def tracked_runs(clone: Clone, store: str | None = None) -> list[dict]:
    """The runs in the clone's MLflow store, or on a server, read in a process of its own."""
    code = """
import json, mlflow
client = mlflow.MlflowClient()
runs = []
for experiment in client.search_experiments():
    for run in client.search_runs([experiment.experiment_id]):
        curve = client.get_metric_history(run.info.run_id, "train/loss")
        files = [file.path for file in client.list_artifacts(run.info.run_id)]
        data = [(entry.dataset.name, entry.dataset.digest) for entry in run.inputs.dataset_inputs]
        runs.append({"params": run.data.params, "metrics": run.data.metrics, "files": files,
                     "curve": [point.step for point in curve], "status": run.info.status,
                     "tags": run.data.tags, "data": data, "artifacts": run.info.artifact_uri})
print("RUNS" + json.dumps(runs))
"""
    store = store or sqlite_uri(clone.folder / "mlflow.db")
    output = clone.run(sys.executable, "-W", "ignore", "-c", code, MLFLOW_TRACKING_URI=store)
    return json.loads(output.split("RUNS", 1)[1])


def assert_complete(run: dict, timed: bool = True, steps: int = 40) -> None:
    """Every param, every stage's metrics, the whole curve without a step twice, the samples.

    How long a stage took is known to nobody where the store could not be written to (`timed`).
    """
    assert run["status"] == "FINISHED"
    assert run["params"]["model.n_embd"] == "32"
    for metric in (
        "prepare/train/bytes",
        "tokenize/vocab_size",
        "train/best_val_loss",
        "evaluate/val/loss",
        "evaluate/val/bits_per_byte",
        "sample/characters",
        "train/val_loss",
        *(["time/train_s"] if timed else []),
    ):
        assert metric in run["metrics"], metric
    # What a kill kept from the store came later.
    assert sorted(run["curve"]) == list(range(1, steps + 1))
    assert {"params.yaml", "dvc.lock", "samples.md"} <= {Path(name).name for name in run["files"]}


SIGNALLED = """
import os, runpy, sys

def hook(event, values):
    if event == "os.rename" and str(values[1]).endswith("step_{step:08d}"):
        os.kill(os.getpid(), {number})

sys.addaudithook(hook)
sys.argv = ["train"]
runpy.run_module("stages.train", run_name="__main__", alter_sys=True)
"""


def train_until(clone: Clone, step: int, number: signal.Signals) -> str:
    """Trains until the state of `step` is about to get its name, then sends itself a signal."""
    code = SIGNALLED.format(step=step, number=int(number))
    return clone.run(sys.executable, "-c", code, check=False)


def saved_step(folder: Path) -> int:
    """The newest step saved in a training's folder; 0 where there is none."""
    return max((int(path.name[5:]) for path in folder.glob("step_*")), default=0)
