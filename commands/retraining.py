"""`gpt verify --retrain`: trains a submission's model again, from nothing but its params.

The stages run in a folder of their own, with this code, and no saved state or cache. On the same
kind of machine the bits have to be the same. On another kind that is impossible, and which kind it
was is only stated: whoever verifies decides whether a weaker proof will do. For that the curve and
the score of the weights on the corpus made here have to agree within the noise of seeds; a second
training with another seed measures it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import NoReturn

import numpy as np
import pandas as pd
import yaml

from commands.limited import run_limited
from commands.lineage import STAGES, own_code, params_of, stated_scores
from gpt.checkpoint import read_run_config
from gpt.corpus.downloads import TABLES, TINYSTORIES
from gpt.device import Device, choose_device
from gpt.errors import ParamsError, SubmissionError
from repro import repository
from repro.repository import WorkingFolder
from stages.params import CURVE, EVALUATE_METRICS, MIRROR, MODEL, DataParams, Params

# How many root mean squares of the difference between two seeds a retrained curve may differ by:
# of some ten evaluations the largest difference is about twice the root mean square.
MAX_NOISE = 3.0
CODE = ("gpt", "repro", "stages", "verse")
ROUNDING = 1e-4  # bits per byte: the same weights, scored by another processor
# Corpora on the Hugging Face hub, and about how many GB a file of each has. All other downloads are
# of a megabyte or less, and pinned by a hash.
FILE_GB = {"tinystories": 1.1, "openwebtext": 0.3, "fineweb_edu": 0.1}


def refuse_to_download(what: str) -> NoReturn:
    raise SubmissionError(
        f"{what}, is not downloaded unasked; add --download, or verify without --retrain"
    )


def retrain(
    folder: Path,
    within_noise: bool = False,
    say: Callable[[str], None] = print,
    allow_download: Callable[[str], None] = refuse_to_download,
) -> str:
    """Trains the model of a submission that `verify` has accepted; returns the result in a line.

    `allow_download` raises where a corpus is not to be downloaded, which it is told in words.
    Raises SubmissionError where something else comes out, a stage fails, or the submission states
    another kind of machine than this and `within_noise` is not set.
    """
    params, source = params_of(folder), own_code(folder)
    code = folder / source if source else None
    theirs = read_run_config(folder / MODEL / "config.json").device
    ours = _device_here(theirs)
    if ours != theirs and not within_noise:
        differs = ", ".join(
            f"{key} {value}, here {getattr(ours, key)}"
            for key, value in theirs.model_dump().items()
            if value != getattr(ours, key)
        )
        raise SubmissionError(
            f"{folder / MODEL}: says it was trained on another kind of machine ({differs}), where "
            "bits differ; verify it on that kind, or add --within-noise for a weaker proof"
        )
    if what := downloads_of(params.data):
        allow_download(what)
    with tempfile.TemporaryDirectory() as name:
        here = _run(params, ours, Path(name), say, code)
        if ours == theirs:
            files = WorkingFolder()
            for path in (MODEL, CURVE):
                if files.md5(str(here / path)) != files.md5(str(folder / path)):
                    raise SubmissionError(
                        f"{folder / path}: trained again on the same kind of machine, other bits "
                        "came out; these came from elsewhere"
                    )
            # Not the baselines in the same file, which depend on the versions of gzip and xz.
            if stated_scores(here) != stated_scores(folder):
                raise SubmissionError(
                    f"{folder / EVALUATE_METRICS}: scored again, the scores differ"
                )
            return "trained again: the same bits"
        say("another kind of machine: a second seed measures the noise")
        with tempfile.TemporaryDirectory() as second:
            next_seed = params.model_copy(update={"seed": params.seed + 1})
            noise, _ = curve_distance(here, _run(next_seed, ours, Path(second), say, code))
        return _within_noise(folder, here, noise)


def downloads_of(data: DataParams) -> str:
    """What `prepare` downloads from the hub, unless it is here already; "" for nothing."""
    files = {"tinystories": len(TINYSTORIES)} | {
        name: min(data.shards, len(shards)) for name, shards in TABLES.items()
    }
    return " and ".join(
        f"{name}, {files[name]:,} files of together about {files[name] * FILE_GB[name]:,.1f} GB"
        for name in data.corpora
        if name in files
    )


def _device_here(theirs: Device) -> Device:
    """What comes closest to `theirs` on this machine."""
    try:
        return choose_device(theirs.name, theirs.dtype, theirs.threads)
    except ParamsError:
        return choose_device(threads=theirs.threads)


def curve_distance(ours: Path, theirs: Path) -> tuple[float, float]:
    """Root mean square and largest difference of the validation losses in two folders, in nats."""
    first, second = (_read_curve(path / CURVE) for path in (ours, theirs))
    merged = first.merge(second, on="step", how="outer")
    difference = (merged["val_loss_x"] - merged["val_loss_y"]).to_numpy(dtype=np.float64)
    if np.isnan(difference).any():
        raise SubmissionError(f"{theirs / CURVE}: evaluated at other steps than the params say")
    return float(np.sqrt(np.mean(difference**2))), float(np.abs(difference).max())


def _read_curve(path: Path) -> pd.DataFrame:
    """Steps and validation losses. Raises SubmissionError for what no training wrote."""
    columns = ["step", "val_loss"]
    try:
        curve = pd.read_csv(path, usecols=columns, dtype=np.float64).dropna()
    except (OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise SubmissionError(f"{path}: is not the curve of a training ({reason})") from None
    if not np.isfinite(curve.to_numpy()).all():
        raise SubmissionError(f"{path}: has a loss that is not finite")
    return curve


def _within_noise(folder: Path, here: Path, noise: float) -> str:
    """Accepts curve and weights in `folder` that differ from those in `here` by seeds' noise."""
    allowed = MAX_NOISE * noise
    _, largest = curve_distance(here, folder)
    if largest > allowed:
        raise SubmissionError(
            f"{folder / CURVE}: trained again the loss was up to {largest:.4f} from this curve, "
            f"and seeds differ by {noise:.4f}; this is the curve of another training"
        )
    # The curve is only stated; the weights themselves are scored here.
    ours = stated_scores(here)
    shutil.rmtree(here / MODEL)
    shutil.copytree(folder / MODEL, here / MODEL)
    _stage("evaluate", here)
    scored, stated = (stated_scores(path)["bits_per_byte"] for path in (here, folder))
    if abs(scored - stated) > ROUNDING:
        raise SubmissionError(
            f"{folder / EVALUATE_METRICS}: says {stated:.4f} bits per byte, "
            f"and the weights have {scored:.4f}"
        )
    retrained = ours["bits_per_byte"]
    in_bits = noise * retrained / ours["loss"]  # from nats per token to bits per byte
    if abs(scored - retrained) > MAX_NOISE * in_bits:
        raise SubmissionError(
            f"{folder / MODEL}: the weights have {scored:.4f} bits per byte, trained again "
            f"{retrained:.4f}, and seeds differ by {in_bits:.4f}; these came from elsewhere"
        )
    return (
        f"trained again on another kind of machine: the same curve within the noise of seeds "
        f"(largest difference {largest:.4f}, allowed {allowed:.4f})"
    )


def _run(
    params: Params, device: Device, folder: Path, say: Callable[[str], None], code: Path | None
) -> Path:
    """Runs the stages in `folder`, from the corpus to the scores, on `device`.

    `code` is the file with the model's own code.
    """
    processes, cores = params.resolved()[1].processes, os.cpu_count() or 1
    if processes > cores:
        raise SubmissionError(f"train.processes = {processes}: this machine has {cores} cores")
    values = params.model_dump()
    used = {"device": device.name, "dtype": device.dtype, "threads": device.threads}
    values["train"] |= used
    # No value of a stranger names a file here, but for the text, which is copied.
    values["sample"] |= {"prompt": "", "prompt_file": "data/prompt.txt", "stop": None}
    values["runtime"] |= {"tracking": False, "sample_tokens": 0, "keep_scratch": False}
    (folder / ".dvc").mkdir()
    for name in CODE:
        shutil.copytree(name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile("dvc.yaml", folder / "dvc.yaml")
    if code:
        # What starts a stage with limits, and what it then runs.
        shutil.copytree(Path(__file__).parent, folder / "commands")
        (folder / params.model_source).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(code, folder / params.model_source)
    if "own" in params.data.corpora:
        _copy_own_text(params.data.path, folder)
    (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8", newline="\n")
    for stage in STAGES:
        say(f"{stage}, seed {params.seed} ...")
        _stage(stage, folder)
    return folder


def _copy_own_text(data_path: str, folder: Path) -> None:
    """Copies the text at `data_path` of this repository to the same place in `folder`.

    Raises SubmissionError for a path that leads out of either: a stranger wrote it.
    """
    own = Path(data_path)
    if own.is_absolute() or ".." in own.parts or not own.parts or (folder / own).exists():
        raise SubmissionError(
            f"data.path = {data_path}: a submission's text is read from a folder for texts in this "
            "repository alone; put it in data/own, train and submit again"
        )
    (folder / own).parent.mkdir(parents=True, exist_ok=True)
    if own.is_dir():
        shutil.copytree(own, folder / own)
    elif own.exists():
        shutil.copyfile(own, folder / own)


def _stage(stage: str, folder: Path) -> None:
    # Downloads are shared; each is held to a hash. Saved states of a training are not.
    tiktoken = repository.location("TIKTOKEN_CACHE_DIR")
    folders = {
        MIRROR: repository.location(MIRROR) or str(repository.scratch() / "downloads"),
        "TIKTOKEN_CACHE_DIR": tiktoken or str(repository.scratch() / "tiktoken"),
    }
    if own_code(folder):
        run_limited(f"stages.{stage}", folder=folder, environment=folders)
        return
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    command = [sys.executable, "-m", f"stages.{stage}"]
    done = subprocess.run(
        command, cwd=folder, env=environment | folders, stdout=PIPE, stderr=STDOUT
    )
    if done.returncode:
        last = (done.stdout.decode(errors="replace").strip().splitlines() or ["no output"])[-1]
        raise SubmissionError(f"{stage} failed when it was run again: {last}")
