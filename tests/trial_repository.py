"""A repository for tests of tracking: the real dvc.yaml, params and code, hand-written results.

No stage does its work and no dvc runs: `run` enters tracking as the stage would, writes small
results, and writes dvc.lock afterwards, as DVC does.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from repro.lockfile import Pipeline
from repro.params import value_at
from repro.repository import WorkingFolder
from repro.tracking import run as tracking
from stages.params import PROJECT, load

REPOSITORY = Path(__file__).resolve().parent.parent
STAGES = ("prepare", "tokenize", "train", "evaluate", "sample")
CURVE = [(step, round(2 + 20 / (9 + step), 4), 0.003, 0.5) for step in range(1, 41)]
EVALUATIONS = {20: 3.9, 40: 3.7}


def commit_all(message: str = "a") -> None:
    """Commits the working folder, which becomes a git repository if it is none yet."""
    identity = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["git", "add", "."], check=True)
    subprocess.run(["git", *identity, "commit", "--quiet", "--message", message], check=True)


class TrialRepository:
    """The folder, which must be the working folder, and what a user and DVC do to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = "weights"
        (folder / ".dvc").mkdir(parents=True)
        for name in ("dvc.yaml", "params.yaml"):
            shutil.copyfile(REPOSITORY / name, folder / name)
        for name in ("gpt", "repro", "stages", "verse"):
            shutil.copytree(
                REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        self.write("data/own/text.txt", "Own text.\n")
        self.write("data/prompt.txt", "")

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def set(self, **values: object) -> None:
        """Edits params.yaml: set(n_layer=2) sets the first key of that name."""
        text = (self.folder / "params.yaml").read_text(encoding="utf-8")
        for key, value in values.items():
            text, count = re.subn(
                rf"^( *{key}:)[^#\n]*", rf"\1 {value} ", text, count=1, flags=re.MULTILINE
            )
            assert count, key
        self.write("params.yaml", text)

    def delete_results(self, stage: str) -> None:
        """What DVC does before it runs a stage."""
        for path in Pipeline(WorkingFolder(), load().model_dump()).outs(stage):
            if Path(path).is_dir():
                shutil.rmtree(path)
            else:
                Path(path).unlink(missing_ok=True)

    def results(self, stage: str) -> None:
        """Writes what the stage would write."""
        if stage == "prepare":
            self.write("data/corpus/train.jsonl", '{"doc": 0, "text": "To be."}\n')
            self.write("metrics/prepare.json", json.dumps({"train": {"bytes": 6}}))
        elif stage == "tokenize":
            self.write("data/tokens/train.npy", "123")
            self.write("metrics/tokenize.json", json.dumps({"vocab_size": 65}))
        elif stage == "train":
            self.write("data/model/model.safetensors", self.model)
            metrics = {"best_val_loss": 3.7, "parameters": 1000, "preset": "quick"}
            self.write("metrics/train.json", json.dumps(metrics))
            lines = ["step,tokens,train_loss,val_loss,learning_rate,grad_norm"]
            lines.append("0,0,,4.2,,")
            for step, loss, rate, norm in CURVE:
                lines.append(f"{step},{step * 10},{loss},{EVALUATIONS.get(step, '')},{rate},{norm}")
            self.write("metrics/curves/train.csv", "\n".join(lines) + "\n")
        elif stage == "evaluate":
            values = {"val": {"loss": 3.7, "bits_per_byte": 5.3}, "note": "not a number"}
            self.write("metrics/evaluate.json", json.dumps(values))
            self.write("metrics/curves/positions.csv", "position,loss\n1,4.0\n2,3.6\n")
            self.write("metrics/curves/calibration.csv", "confidence,accuracy,share\n0.5,0.5,1\n")
            (self.folder / "metrics/pictures").mkdir(exist_ok=True)
            (self.folder / "metrics/pictures/loss.png").write_bytes(b"\x89PNG")
        else:
            sample = {"sample": 0, "prompt": "", "text": "Thou art.", "seed": load().sample.seed}
            self.write("data/samples/samples.jsonl", json.dumps(sample) + "\n")
            self.write("metrics/samples.md", "# Samples\n\nThou art.\n")
            self.write("metrics/sample.json", json.dumps({"samples": 1}))

    def lock(self, stage: str) -> None:
        write_lock(self.folder, stage)

    def send_curve(self, run: tracking.Run, first: int = 1, last: int = 40) -> None:
        """Sends the points that the train stage sends while it runs."""
        for step, loss, rate, norm in CURVE[first - 1 : last]:
            values = {"train/loss": loss, "train/learning_rate": rate, "train/grad_norm": norm}
            run.log_metrics(values, step=step)

    def run(self, stage: str, body: Callable[[tracking.Run], None] | None = None) -> None:
        """One stage, as `dvc repro` would run it; what `body` raises passes."""
        self.delete_results(stage)
        with tracking.stage(PROJECT, stage, load()) as run:
            if body is not None:
                body(run)
            elif stage == "train":
                self.send_curve(run)
                run.log_metrics({"time/tokens_per_second": 1234.0}, step=0)
            self.results(stage)
        self.lock(stage)

    def run_all(self) -> None:
        for stage in STAGES:
            self.run(stage)


def write_lock(folder: Path, stage: str) -> None:
    """Writes the stage's entry of dvc.lock, as DVC does once it is done. In `folder`."""
    files, values = WorkingFolder(), load().model_dump()
    pipeline = Pipeline(files, values)

    def entry(path: str) -> dict[str, Any]:
        return {"path": path, "hash": "md5", "md5": files.md5(path), "size": files.size(path)}

    spec = pipeline.stages[stage]
    path = folder / "dvc.lock"
    text = path.read_text(encoding="utf-8") if path.exists() else "{}"
    locked = yaml.safe_load(text) or {}
    locked.setdefault("stages", {})[stage] = {
        "cmd": spec["cmd"],
        "deps": [entry(path) for path in pipeline.deps(stage)],
        "params": {"params.yaml": {key: value_at(values, key) for key in spec["params"]}},
        "outs": [entry(path) for path in pipeline.outs(stage)],
    }
    path.write_text(yaml.safe_dump(locked), encoding="utf-8")
