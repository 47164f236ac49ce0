"""Megabytes a second of every tokenizer beside tiktoken, and of BPE training beside rustbpe.

    python benchmarks/tokenizers.py [--text FILE] [--megabytes 100] [--seconds 10]

Encoding is timed on one core, on the text in parts as the stage reads them; ours and tiktoken's
take turns, so that a slow spell of the machine hits both, and the best turn counts. A turn encodes
as many parts of the text as fill about a second. Both trainers read all of the text, ours with the
floor for merges (which reads on until every merge is known to be frequent). Without a file the text
is `verse`, whose 2,000 words make training look easy: name a text of your own. A shorter text is
repeated. GPT-2's file is looked for as the stage does.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import cycle
from pathlib import Path

# rustbpe counts on all cores otherwise, and a core is what is compared.
os.environ.setdefault("RAYON_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import tiktoken

from gpt.tokenizers import bpe_training as vocabulary
from gpt.tokenizers.base import (
    CHUNK,
    PATTERNS,
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    GPT2Tokenizer,
    Tokenizer,
    WordTokenizer,
    recut,
)
from stages.tokenize import gpt2_file_at_hand
from verse.grammar import write_play

SIZES = {"vocab_size": 4096, "pattern": "gpt4"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", type=Path, help="UTF-8; without it, verse")
    parser.add_argument("--megabytes", type=float, default=100.0, help="of text")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each kind, about")
    options = parser.parse_args()
    parts = corpus(options.text, round(options.megabytes * 1e6))
    megabytes = sum(len(part.encode()) for part in parts) / 1e6
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("numpy", "tiktoken", "rustbpe", "regex"))
    )
    print(f"{megabytes:.1f} MB of {options.text.name if options.text else 'verse'}, one core\n")

    seconds = {}
    for floor in (1, 2):
        start = time.perf_counter()
        tokens = vocabulary.train_bpe(lambda: iter(parts), min_frequency=floor, **SIZES)
        seconds[f"train_bpe, min_frequency {floor}"] = time.perf_counter() - start
    start = time.perf_counter()
    rustbpe_alone(parts)
    seconds["rustbpe alone"] = time.perf_counter() - start
    for name, taken in seconds.items():
        ratio = taken / seconds["rustbpe alone"]
        print(f"{name:28} {taken:7.2f} s  {megabytes / taken:7.1f} MB/s  {ratio:5.2f} x its time")

    words = vocabulary.frequent_words(lambda: iter(parts), min_frequency=2, **SIZES)
    kinds: dict[str, tuple[Tokenizer, tiktoken.Encoding | None]] = {
        "char": (CharTokenizer(vocabulary.characters(parts), has_bos=False), None),
        "byte": (ByteTokenizer(has_bos=False), None),
        "bpe": (BPETokenizer(tokens, "gpt4", has_bos=False), by_hand(tokens, "gpt4")),
        "word": (WordTokenizer(words, "gpt4", has_bos=False), by_hand(tokens, "gpt4")),
    }
    file = gpt2_file_at_hand()
    if file is not None:
        gpt2 = vocabulary.gpt2_tokens(file)
        kinds["gpt2"] = (GPT2Tokenizer(gpt2, has_bos=False), by_hand(gpt2, "gpt2"))
    print(f"\n{'kind':6} {'MB/s':>8} {'tiktoken':>9} {'ratio':>6} {'bytes/token':>12}")
    for kind, (tokenizer, reference) in kinds.items():
        ours, theirs = speeds(tokenizer, reference, parts, options.seconds)
        sample = parts[0]
        density = len(sample.encode()) / len(tokenizer.encode(sample))
        beside = f"{theirs:9.1f} {ours / theirs:6.2f}" if reference else f"{'':16}"
        print(f"{kind:6} {ours:8.1f} {beside} {density:12.2f}")


def corpus(file: Path | None, size: int) -> list[str]:
    """About `size` bytes in parts as the stage encodes them."""
    if file is None:
        # Twenty plays, again and again: writing more would take longer than everything else.
        text = "".join(write_play(0, index).text for index in range(20))
    else:
        text = file.read_bytes().decode()
    text *= -(-size // len(text.encode()))
    text = text.encode()[:size].decode(errors="ignore")
    starts = range(0, len(text), CHUNK)
    return [part for _, part in recut(("", text[start : start + CHUNK]) for start in starts)]


def rustbpe_alone(parts: list[str]) -> None:
    import rustbpe

    trainer = rustbpe.Tokenizer()
    pattern = PATTERNS[SIZES["pattern"]]
    trainer.train_from_iterator(iter(parts), SIZES["vocab_size"], buffer_size=64, pattern=pattern)


def by_hand(tokens: list[bytes], pattern: str) -> tiktoken.Encoding:
    ranks = {token: rank for rank, token in enumerate(tokens)}
    return tiktoken.Encoding(
        "by hand", pat_str=PATTERNS[pattern], mergeable_ranks=ranks, special_tokens={}
    )


def speeds(
    tokenizer: Tokenizer, reference: tiktoken.Encoding | None, parts: list[str], seconds: float
) -> tuple[float, float]:
    """The best megabytes a second of ours and of the reference (0: there is none)."""
    encoders: list[Callable[[str], object]] = [tokenizer.encode]
    if reference is not None:
        encoders.append(reference.encode_ordinary)
    sizes = [len(part.encode()) / 1e6 for part in parts]
    turn = cycle(zip(parts, sizes, strict=True))
    for encode in encoders:
        encode(parts[0][:1000])
    best = [0.0, 0.0]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        batch, spent = [], 0.0
        while spent < 0.5:
            batch.append(next(turn))
            start = time.perf_counter()
            encoders[0](batch[-1][0])
            spent += time.perf_counter() - start
        size = sum(part_size for _, part_size in batch)
        best[0] = max(best[0], size / spent)
        if len(encoders) > 1:
            start = time.perf_counter()
            for part, _ in batch:
                encoders[1](part)
            best[1] = max(best[1], size / (time.perf_counter() - start))
    return best[0], best[1]


if __name__ == "__main__":
    main()
