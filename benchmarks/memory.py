"""Peak memory of the train stage, preset by preset.

    python benchmarks/memory.py [PRESET ...] [--steps 3]

In a clone of what is committed it runs prepare and tokenize on a little text, then the train stage
for some steps in a process of its own, evaluations and saving included, and
prints the most memory that the process held, as the system counts it. More steps take no more.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("presets", nargs="*", default=["tiny", "small", "medium"])
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    for preset in options.presets:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            subprocess.run(["git", "clone", "-q", str(REPOSITORY), name], check=True)
            write_params(folder, preset, options.steps)
            for stage in ("prepare", "tokenize"):
                run(folder, stage)
            print(f"{preset}: {run(folder, 'train') / 1e9:.2f} GB", flush=True)


def write_params(folder: Path, preset: str, steps: int) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["preset"] = preset
    params["data"] |= {"corpus": "verse", "verse_bytes": 200_000}
    params["train"] |= {"steps": steps, "warmup_steps": 0, "eval_tokens": 4096}
    params["runtime"] |= {"tracking": False, "sample_tokens": 0}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def run(folder: Path, stage: str) -> int:
    """Runs a stage; the most bytes that its process held."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{stage} failed")
    # In kilobytes, but on macOS.
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
