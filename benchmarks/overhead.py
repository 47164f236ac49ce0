"""What the pipeline costs beside its work.

    python benchmarks/overhead.py [--rounds 5]

1. `dvc repro` with nothing to do, beside DVC with a pipeline of one stage and nothing to do.
2. The five stages on a text of a few hundred bytes and one step, beside what cannot be avoided: DVC
   running five stages that do nothing, `import torch` in the three that need it, and `import
   mlflow` and opening the store in each of the five, which is how tracking is used.

Both sides take turns, in folders of their own, with a warm disk cache.
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

# dvc's stages call python, and both lie beside the Python that runs this.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

REPOSITORY = Path(__file__).resolve().parent.parent
TEXT = "Where'er the silver moon shall rise, the sea will follow.\n" * 10
TINY = {
    "corpus": "own",
    "n_layer": "1",
    "n_head": "1",
    "n_embd": "8",
    "block_size": "8",
    "steps": "1",
    "batch_size": "1",
    "num_samples": "1",
    "max_new_tokens": "1",
    "sample_tokens": "0",
}
STAGES = ("prepare", "tokenize", "train", "evaluate", "sample")
STORE = (
    "import mlflow, tempfile; "
    "mlflow.set_tracking_uri('sqlite:///{store}'); mlflow.MlflowClient().search_experiments()"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    dvc = subprocess.run(["dvc", "--version"], capture_output=True, text=True, check=True).stdout
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"dvc {dvc.strip()}"
    )
    with tempfile.TemporaryDirectory() as folder:
        ours, idle, busy = (Path(folder) / name for name in ("ours", "idle", "busy"))
        clone(ours)
        pipeline(idle, ["nothing"])
        pipeline(busy, list(STAGES))
        timed(["dvc", "repro"], ours)
        timed(["dvc", "repro"], idle)
        nothing: list[tuple[float, float]] = []
        for _ in range(options.rounds):
            nothing.append((timed(["dvc", "repro"], ours), timed(["dvc", "repro"], idle)))
        show("nothing to do", nothing)

        store = Path(folder) / "store.db"
        opening = [sys.executable, "-c", STORE.format(store=store)]
        timed(opening, busy)
        everything: list[tuple[float, float]] = []
        for _ in range(options.rounds):
            run = timed(["dvc", "repro", "--force"], ours)
            floor = timed(["dvc", "repro", "--force"], busy)
            floor += 3 * timed([sys.executable, "-c", "import torch"], busy)
            floor += 5 * timed(opening, busy)
            everything.append((run, floor))
        show("five stages on next to nothing", everything)


def show(name: str, pairs: list[tuple[float, float]]) -> None:
    ours, floor = (statistics.median(values) for values in zip(*pairs, strict=True))
    ratio = statistics.median(ours / floor for ours, floor in pairs)
    print(f"{name}: ours {ours:.2f} s, floor {floor:.2f} s, {ours - floor:+.2f} s, {ratio:.2f}")


def clone(folder: Path) -> None:
    """This repository with a text and sizes that cost next to nothing."""
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(folder)], check=True)
    shutil.rmtree(folder / "data/own")
    (folder / "data/own").mkdir()
    (folder / "data/own/text.txt").write_text(TEXT, encoding="utf-8")
    params = (folder / "params.yaml").read_text(encoding="utf-8")
    for key, value in TINY.items():
        params, count = re.subn(
            rf"^( +{key}:)[^#\n]*", rf"\1 {value} ", params, count=1, flags=re.M
        )
        if not count:
            sys.exit(f"params.yaml has no key {key}")
    (folder / "params.yaml").write_text(params, encoding="utf-8")


def pipeline(folder: Path, stages: list[str]) -> None:
    """A DVC repository whose stages start Python and do nothing."""
    folder.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["dvc", "init", "-q"], cwd=folder, check=True)
    lines = "".join(f"  {name}:\n    cmd: {sys.executable} -c pass\n" for name in stages)
    (folder / "dvc.yaml").write_text(f"stages:\n{lines}", encoding="utf-8")


def timed(command: list[str], folder: Path) -> float:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    environment["DVC_NO_ANALYTICS"] = "1"
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr[-2000:]}")
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
