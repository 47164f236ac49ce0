"""Peak memory and speed of prepare and tokenize on a large corpus, tiktoken by hand beside them.

    python benchmarks/corpus.py [--megabytes 1000] [--kinds char bpe gpt2] [--folder FOLDER]

Makes a jsonl file: documents of lines drawn from twenty plays of `verse`, so about as dense as
text is, and no two documents the same. Runs the stages on it as `dvc repro` would, each in a
process of its own, and watches it and its children. Memory is the largest sum of what they hold
(shared pages counted once, where the system tells); a core's speed is megabytes of text a second of
processor time, for `bpe` that of its training too. By hand: tiktoken on the same documents, in a
loop, one thread, its processor time; for `char` a dict in a loop, as nanoGPT has it. GPT-2's file
is looked for as the stage does.
"""

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil
import tiktoken
import yaml

from gpt import vocabulary
from gpt.corpus import read_parts
from gpt.tokenizer import PATTERNS
from gpt.verse import write_play
from stages.tokenize import gpt2_file_at_hand

REPOSITORY = Path(__file__).resolve().parent.parent
BY_HAND = 30e6  # bytes encoded for the comparison


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=1000.0, help="of text")
    parser.add_argument("--kinds", nargs="*", default=["char", "bpe", "gpt2"])
    parser.add_argument("--folder", type=Path, help="for what is written and deleted again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        size = make_corpus(folder / "corpus.jsonl", options.megabytes * 1e6) / 1e6
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
            f"{size:,.0f} MB of text in {(folder / 'corpus.jsonl').stat().st_size / 1e6:,.0f} MB\n"
        )
        print(
            f"{'stage':18} {'s':>7} {'MB/s':>7} {'a core':>7} {'cores':>6} {'peak MB':>8} by hand"
        )
        (folder / ".dvc").mkdir()
        write_params(folder, "char")
        report("prepare", size, *run(folder, "prepare"))
        for kind in options.kinds:
            write_params(folder, kind)
            measured = run(folder, "tokenize")
            report(f"tokenize {kind}", size, *measured, by_hand=speed_by_hand(folder, kind))


def make_corpus(path: Path, size: float) -> int:
    """Writes about `size` bytes of text; returns how many."""
    lines = [line for index in range(20) for line in write_play(0, index).text.splitlines()]
    draw = random.Random(0)  # noqa: S311 (no secret)
    written = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            text = "\n".join(draw.choices(lines, k=draw.randint(5, 150)))
            written += len(text.encode())
            file.write(json.dumps({"text": text}) + "\n")
    return written


def write_params(folder: Path, kind: str) -> None:
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    params["data"] |= {"corpus": "own", "path": "corpus.jsonl", "val_fraction": 0.01}
    params["tokenizer"]["kind"] = kind
    params["runtime"]["tracking"] = False
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def run(folder: Path, stage: str) -> tuple[float, float, float]:
    """Seconds, processor seconds, and peak memory in MB of a stage."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, memory(process.pid))
        time.sleep(0.2)
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(process.returncode)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, busy, peak


def memory(pid: int) -> float:
    """What a process and its children hold now, in MB, mapped files and shared pages divided."""
    total = 0.0
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            held = one.memory_full_info()
            total += getattr(held, "pss", held.uss)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return 0.0
    return total / 1e6


def report(
    name: str, size: float, seconds: float, busy: float, peak: float, by_hand: float = 0.0
) -> None:
    beside = f"{by_hand:.1f} MB/s, ours {size / busy / by_hand:.2f}" if by_hand else ""
    print(
        f"{name:18} {seconds:7.1f} {size / seconds:7.1f} {size / busy:7.1f} "
        f"{busy / seconds:6.2f} {peak:8.0f} {beside}",
        flush=True,
    )


def speed_by_hand(folder: Path, kind: str) -> float:
    """Megabytes a second of one core, the documents of the training split one after the other."""
    encode = encoder(folder, kind)
    texts, size = [], 0
    for text in train_texts(folder):
        texts.append(text)
        size += len(text.encode())
        if size >= BY_HAND:
            break
    encode(texts[0])
    start = time.process_time()
    for text in texts:
        encode(text)
    return size / 1e6 / (time.process_time() - start)


def encoder(folder: Path, kind: str) -> Callable[[str], object]:
    spec = json.loads((folder / "data/tokens/tokenizer.json").read_bytes())
    if kind == "char":
        ids = {character: number for number, character in enumerate(spec["characters"])}
        return lambda text: [ids[character] for character in text]
    if kind == "gpt2":
        file = gpt2_file_at_hand()
        if file is None:
            sys.exit("GPT-2's file is not at hand; set TIKTOKEN_CACHE_DIR")
        tokens, pattern = vocabulary.gpt2_tokens(file), "gpt2"
    else:
        tokens = [token.encode("latin-1") for token in spec["tokens"]]
        pattern = spec["pattern"]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    return tiktoken.Encoding(
        "by hand", pat_str=PATTERNS[pattern], mergeable_ranks=ranks, special_tokens={}
    ).encode_ordinary


def train_texts(folder: Path) -> Iterator[str]:
    return (text for _, text in read_parts(folder / "data/corpus", "train"))


if __name__ == "__main__":
    main()
