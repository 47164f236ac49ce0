"""What a forger does to a submission: edits, and the hashes that hide them."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from small_training import SmallTraining
from typer.testing import CliRunner

from commands.cli import app
from commands.lineage import STAGES
from commands.model_run import generate_candidates, score
from commands.submission import read
from gpt.checkpoint import load_model
from repro.repository import WorkingFolder

METRICS = "metrics/evaluate.json"


def gpt(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(words))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def train_and_submit(training: SmallTraining, *words: str) -> None:
    """Runs the stages in the training's folder and writes a submission there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(training.folder)
        training.finish(STAGES)
        code, output = gpt("submit", "--author", "Ada", *words, "--out", "submission")
        assert code == 0, output


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def cover_up(folder: Path, code: str = "") -> None:
    """Makes all hashes agree with the files, as a careful forger would; `code` is the model's."""
    model = folder / "data/model"
    edit(
        model / "config.json",
        lambda config: config.update(weights_sha256=sha256(model / "model.safetensors")),
    )
    lock = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))
    for stage in lock["stages"].values():
        for entry in (*stage["deps"], *stage["outs"]):
            ours = entry["path"].endswith(".py") and entry["path"] != code
            if not ours and (folder / entry["path"]).exists():
                entry["md5"] = WorkingFolder().md5(str(folder / entry["path"]))
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")

    def hashes(content: dict[str, Any]) -> None:
        content["files"] = {name: sha256(folder / name) for name in content["files"]}
        content["hashes"]["model"] = sha256(model / "model.safetensors")
        content["hashes"]["dvc_lock"] = sha256(folder / "dvc.lock")
        val = json.loads((folder / METRICS).read_bytes())["val"]
        content["scores"] = {k: v for k, v in val.items() if isinstance(v, int | float)}

    edit(folder / "submission.json", hashes)


def vouch(folder: Path, *names: str) -> None:
    """Lets submission.json state the hashes of some files as they are."""
    hashes = {name: sha256(folder / name) for name in names}
    edit(folder / "submission.json", lambda content: content["files"].update(hashes))


def rename_corpus(folder: Path) -> None:
    """Makes all hashes agree that the corpus was another one."""
    lock = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))
    for stage in lock["stages"].values():
        for entry in (*stage["deps"], *stage["outs"]):
            if entry["path"] == "data/corpus":
                entry["md5"] = "0" * 32 + ".dir"
    rewrite_lock(folder, lock)
    edit(
        folder / "submission.json",
        lambda content: content["hashes"].update(corpus="0" * 32 + ".dir"),
    )


def rewrite_lock(folder: Path, lock: dict[str, Any]) -> None:
    path = folder / "dvc.lock"
    path.write_text(yaml.safe_dump(lock), encoding="utf-8")
    digest = sha256(path)
    edit(folder / "submission.json", lambda content: content["hashes"].update(dvc_lock=digest))
    vouch(folder, "dvc.lock")


def other_weights(folder: Path) -> None:
    weights = load_file(folder / "data/model/model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for tensor in weights.values():
        tensor += 0.05 * torch.randn(tensor.shape, generator=generator)
    save_file(weights, folder / "data/model/model.safetensors")


def state_the_score(folder: Path) -> None:
    """What the weights in the folder have is stated."""
    cover_up(folder)
    value = score(load_model(folder / "data/model"), Path("data/corpus"))
    edit(folder / METRICS, lambda m: m["val"].update(bits_per_byte=value))


def write_anew(folder: Path) -> None:
    """The candidates and the poem as the weights in the folder write them."""
    submission = read(folder)
    texts = generate_candidates(load_model(folder / "data/model"), submission.decoding, 3)
    edit(folder / "submission.json", lambda content: content.update(candidates=texts))
    (folder / "poem.txt").write_bytes(texts[submission.chosen].encode())
