"""Measures peak memory and speed of prepare and tokenize on a large corpus.

    python benchmarks/corpus.py [--megabytes 1000] [--kinds char bpe gpt2] [--folder FOLDER]

Writes a jsonl file of documents: lines sampled from twenty plays of `verse`, so about as dense as
text is, and no two documents the same. Runs the stages on it as `dvc repro` does, each in a process
of its own. Memory is the largest sum over the process and its children (shared pages counted once,
where the system reports them).

Then measures encoding alone, without training a vocabulary, on the beginning of the training split:
the stage's, and in turns with it tiktoken called in a loop by one thread per core (for `char` a
dict in one thread, as in nanoGPT). Speed per core is in megabytes of text per second of processor
time.
For `bpe` also the training: the stage's, and rustbpe's on the same texts.
"""

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil
import rustbpe
import tiktoken
import yaml

from gpt.corpus import parallel
from gpt.corpus.manifest import read_chunks, shards_of
from gpt.corpus.writer import CorpusWriter
from gpt.tokenizers.chunking import PATTERNS
from gpt.tokenizers.encoding import ShardJob, encode_shard
from stages import tokenize
from stages.params import load
from verse.play import write_play

REPOSITORY = Path(__file__).resolve().parent.parent
BY_HAND = 30e6  # bytes encoded for the comparison
ROUNDS = 9


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=1000.0, help="of text")
    parser.add_argument("--kinds", nargs="*", default=["char", "bpe", "gpt2"])
    parser.add_argument("--folder", type=Path, help="for temporary files")
    options = parser.parse_args()
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        size = make_corpus(folder / "corpus.jsonl", options.megabytes * 1e6) / 1e6
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
            f"{size:,.0f} MB of text in {(folder / 'corpus.jsonl').stat().st_size / 1e6:,.0f} MB\n"
        )
        print(f"{'stage':18} {'s':>7} {'MB/s':>7} {'a core':>7} {'cores':>6} {'peak MB':>8}")
        (folder / ".dvc").mkdir()
        write_params(folder, "char")
        report("prepare", size, *run(folder, "prepare"))
        for kind in options.kinds:
            write_params(folder, kind)
            report(f"tokenize {kind}", size, *run(folder, "tokenize"))
        print(f"\nencoding alone, MB/s a core, median of {ROUNDS} turns each")
        print(f"{'':18} {'ours':>7} {'by hand':>8} {'ratio':>7}")
        os.chdir(folder)
        for kind in options.kinds:
            encoding_alone(kind)
        if "bpe" in options.kinds:
            training_alone()


def make_corpus(path: Path, size: float) -> int:
    """Writes about `size` bytes of text; returns the exact number."""
    lines = [line for index in range(20) for line in write_play(0, index).text.splitlines()]
    rng = random.Random(0)  # noqa: S311 (no secret)
    written = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            text = "\n".join(rng.choices(lines, k=rng.randint(5, 150)))
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
        for member in (process, *process.children(recursive=True)):
            usage = member.memory_full_info()
            total += getattr(usage, "pss", usage.uss)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return 0.0
    return total / 1e6


def report(name: str, size: float, seconds: float, busy: float, peak: float) -> None:
    print(
        f"{name:18} {seconds:7.1f} {size / seconds:7.1f} {size / busy:7.1f} "
        f"{busy / seconds:6.2f} {peak:8.0f}",
        flush=True,
    )


def encoding_alone(kind: str) -> None:
    """Prints the speed of encoding, ours and by hand, of the same part of the training split."""
    write_params(Path(), kind)
    tokenizer = tokenize.make_tokenizer(load().tokenizer)
    with CorpusWriter(Path("part")) as writer:
        texts: list[str] = []
        size = 0
        for doc, text in read_chunks(tokenize.CORPUS, "train"):
            writer.write("train", doc, text)
            texts.append(text)
            size += len(text.encode())
            if size >= BY_HAND:
                break
        writer.finish({})
    (shard,) = shards_of(Path("part"), "train")
    job = ShardJob("train", shard, is_last=True)
    cores = parallel.cores()

    def ours() -> None:
        for _ in encode_shard(job, tokenizer):
            pass

    encode = by_hand(kind, tokenizer)

    def loop(first: int) -> None:
        for text in texts[first :: 1 if kind == "char" else cores]:
            encode(text)

    def theirs() -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(loop, range(1 if kind == "char" else cores)))

    speeds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(ROUNDS):
        for name, work in (("ours", ours), ("theirs", theirs)):
            start = time.process_time()
            work()
            speeds[name].append(size / 1e6 / (time.process_time() - start))
    ours_median, theirs_median = (statistics.median(values) for values in speeds.values())
    # Turn by turn, since a shared machine is as fast as it is for both of a pair.
    ratios = sorted(ours / theirs for ours, theirs in zip(*speeds.values(), strict=True))
    print(
        f"{kind:18} {ours_median:7.1f} {theirs_median:8.1f} {statistics.median(ratios):7.2f} "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f})",
        flush=True,
    )


def by_hand(kind: str, tokenizer: Any) -> Callable[[str], object]:
    if kind == "char":
        ids = {character: number for number, character in enumerate(tokenizer.characters)}
        return lambda text: [ids[character] for character in text]
    ranks = tokenizer._ranks
    return tiktoken.Encoding(
        "by hand",
        pat_str=PATTERNS[tokenizer.pattern],
        mergeable_ranks=ranks,
        special_tokens={},
    ).encode_ordinary


def training_alone() -> None:
    """Prints the seconds of learning byte pairs, the stage's and rustbpe's own."""
    write_params(Path(), "bpe")
    options = load().tokenizer

    def texts() -> Iterator[str]:
        return (text for _, text in read_chunks(tokenize.CORPUS, "train"))

    start = time.perf_counter()
    tokenize.make_tokenizer(options)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    rustbpe.Tokenizer().train_from_iterator(
        texts(), options.vocab_size, pattern=PATTERNS[options.pattern]
    )
    theirs = time.perf_counter() - start
    print(
        f"\nlearning {options.vocab_size} byte pairs from the training split: ours {ours:.1f} s, "
        f"rustbpe on the same texts {theirs:.1f} s, ratio {ours / theirs:.2f}"
    )


if __name__ == "__main__":
    main()
