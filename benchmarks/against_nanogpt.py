"""Our train stage beside nanoGPT's train.py: time, loss, and the same scorer for both models.

    GPT_MIRROR=FOLDER python benchmarks/against_nanogpt.py PATH_TO_NANOGPT [--rounds 3]
    ... --preset speedrun                      what we would train in its place
    ... --preset speedrun --set steps=250      in a part of the time

Needs a checkout of nanoGPT (nothing of it is changed; its data and output go to a temporary folder)
and shakespeare.txt in GPT_MIRROR or in .cache/downloads. nanoGPT trains its CPU recipe, ours the
preset (by default the same recipe) with the seed of the round, on the same text and in turn, so
that a slow spell of the machine hits both. Whole processes are timed: for ours `python -m
stages.train` with its tracking, for nanoGPT `python train.py`. Both models are scored by the same
code on the whole of the last tenth, of which no training has seen anything.
"""

import argparse
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from gpt.config import ModelConfig  # noqa: E402
from gpt.device import choose_device  # noqa: E402
from gpt.evaluation.scoring import Scorer, block_windows, half_block_windows  # noqa: E402
from gpt.model import GPT  # noqa: E402
from gpt.presets import resolve  # noqa: E402
from gpt.types import Ids  # noqa: E402

OVERRIDES = {
    "device": "cpu",
    "compile": "False",
    "eval_iters": "20",
    "log_interval": "1",
    "block_size": "64",
    "batch_size": "12",
    "n_layer": "4",
    "n_head": "4",
    "n_embd": "128",
    "max_iters": "2000",
    "lr_decay_iters": "2000",
    "dropout": "0.0",
}
RECIPE = ["config/train_shakespeare_char.py", *(f"--{k}={v}" for k, v in OVERRIDES.items())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nanogpt", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--preset", default="nanogpt-cpu")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of the section train"
    )
    options = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "ours", prepare_theirs(Path(folder), options.nanogpt)
        prepare_ours(ours)
        ids = np.load(ours / "data/tokens/val.npy")
        write_bins(ours, theirs)
        ratios = []
        for round_ in range(options.rounds):
            shutil.rmtree(ours / ".cache", ignore_errors=True)
            settings = {"preset": options.preset, "seed": str(round_ + 1)}
            change(ours, settings | dict(pair.split("=", 1) for pair in options.set))
            our_seconds = timed([sys.executable, "-m", "stages.train"], ours)
            their_seconds = timed([sys.executable, "train.py", *RECIPE], theirs)
            ratios.append(our_seconds / their_seconds)
            print(
                f"round {round_}: ours {our_seconds:.1f} s, nanoGPT {their_seconds:.1f} s, "
                f"ratio {ratios[-1]:.3f}",
                flush=True,
            )
            report(f"  ours, seed {round_ + 1}", our_model(ours), ids)
            report("  nanoGPT", their_model(theirs), ids)
        print(f"time ratio: median {statistics.median(ratios):.3f} of {options.rounds}")


def change(ours: Path, settings: dict[str, str]) -> None:
    """Sets keys at the top of params.yaml, or else in its section `train`."""
    path = ours / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in settings.items():
        section = params if key in params else params["train"]
        if key not in section:
            sys.exit(f"params.yaml has no key {key}, at the top or in train")
        section[key] = yaml.safe_load(value)
    path.write_text(yaml.safe_dump(params), encoding="utf-8")


def prepare_ours(ours: Path) -> None:
    """A copy of the repository with Shakespeare prepared and tokenized."""
    ignore = shutil.ignore_patterns(".git", ".venv", ".cache", "mlflow.db", "mlartifacts", "cache")
    shutil.copytree(REPOSITORY, ours, ignore=ignore)
    params = (ours / "params.yaml").read_text(encoding="utf-8")
    params = re.sub(r"^  corpus: \w+", "  corpus: shakespeare", params, flags=re.M)
    (ours / "params.yaml").write_text(params, encoding="utf-8")
    for stage in ("prepare", "tokenize"):
        timed([sys.executable, "-m", f"stages.{stage}"], ours)


def prepare_theirs(folder: Path, checkout: Path) -> Path:
    theirs = folder / "nanogpt"
    shutil.copytree(checkout, theirs, ignore=shutil.ignore_patterns(".git", "out*"))
    return theirs


def write_bins(ours: Path, theirs: Path) -> None:
    """The same ids as nanoGPT's own files (a test holds their hashes)."""
    data = theirs / "data/shakespeare_char"
    for split in ("train", "val"):
        np.load(ours / f"data/tokens/{split}.npy").tofile(data / f"{split}.bin")
    # Without its meta.pkl, nanoGPT takes the vocabulary of GPT-2.
    import pickle

    (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": 65, "itos": {}, "stoi": {}}))


def timed(command: list[str], folder: Path) -> float:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    mirror = environment.get("GPT_MIRROR")
    if mirror and "://" not in mirror:
        environment["GPT_MIRROR"] = str(Path(mirror).resolve())
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


def our_model(folder: Path) -> GPT:
    from gpt.checkpoint import load_model

    return load_model(folder / "data/model").model


def their_model(folder: Path) -> GPT:
    """nanoGPT's checkpoint in our model, weight by weight; the two are the same function."""
    saved = torch.load(
        folder / "out-shakespeare-char/ckpt.pt", map_location="cpu", weights_only=True
    )
    config, _, _ = resolve("nanogpt-cpu", {}, {})
    assert isinstance(config, ModelConfig)
    model = GPT(config, 65)
    names = {
        "transformer.wte": "token_embedding",
        "transformer.wpe": "position_embedding",
        "transformer.ln_f": "norm",
        "transformer.h": "blocks",
        "ln_1": "norm_1",
        "ln_2": "norm_2",
        "attn.c_attn": "attention.qkv",
        "attn.c_proj": "attention.proj",
        "mlp.c_fc": "mlp.up",
        "mlp.c_proj": "mlp.down",
    }
    weights = {}
    for name, tensor in saved["model"].items():
        if name == "lm_head.weight":
            continue
        for theirs, ours in names.items():
            name = re.sub(rf"(^|\.){re.escape(theirs)}\b", rf"\1{ours}", name)
        weights[name] = tensor
    model.load_state_dict(weights)
    return model


def report(name: str, model: GPT, ids: Ids) -> None:
    device = choose_device("cpu")
    block_size = model.config.block_size
    ways = [cut(len(ids), block_size) for cut in (half_block_windows, block_windows)]
    half, blocks = Scorer(model, device, batch_tokens=16384).token_scores(ids, ways)
    print(f"{name}: loss {half.losses.mean():.4f}, loss_blocks {blocks.losses.mean():.4f}")


if __name__ == "__main__":
    main()
