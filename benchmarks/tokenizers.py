"""Megabytes per second of every tokenizer compared with tiktoken, and of BPE training.

    python benchmarks/tokenizers.py [--text FILE] [--megabytes 100] [--seconds 10]

Encoding is timed on one core, on chunks of text as the stage encodes them; ours and tiktoken's
alternate, so that a slow spell of the machine hits both, and the best round counts. A round encodes
chunks for about half a second. Without a file the text is `verse`, whose 2,000 words make training
easy: name a text of your own. A shorter text is repeated. GPT-2's file is found as the stage does.
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

from gpt.tokenizers.base import Tokenizer
from gpt.tokenizers.bpe_training import train_bpe
from gpt.tokenizers.byte_level import BPETokenizer, ByteTokenizer, GPT2Tokenizer
from gpt.tokenizers.char import CharTokenizer, distinct_characters
from gpt.tokenizers.chunking import PATTERNS, split_long
from gpt.tokenizers.gpt2_vocab import find_gpt2_vocab, gpt2_tokens
from repro import repository
from stages.params import MIRROR
from stages.tokenize import gpt2_folders
from verse.play import write_play


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", type=Path, help="UTF-8; without it, verse")
    parser.add_argument("--megabytes", type=float, default=100.0, help="of text")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each kind, about")
    options = parser.parse_args()
    chunks = corpus(options.text, round(options.megabytes * 1e6))
    megabytes = sum(len(chunk.encode()) for chunk in chunks) / 1e6
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("numpy", "tiktoken", "rustbpe", "regex"))
    )
    print(f"{megabytes:.1f} MB of {options.text.name if options.text else 'verse'}, one core\n")

    start = time.perf_counter()
    tokens = train_bpe(chunks, vocab_size=4096, pattern="gpt4")
    seconds = time.perf_counter() - start
    print(f"train_bpe: {seconds:.2f} s, {megabytes / seconds:.1f} MB/s")

    kinds: dict[str, tuple[Tokenizer, tiktoken.Encoding | None]] = {
        "char": (CharTokenizer(distinct_characters(chunks), has_bos=False), None),
        "byte": (ByteTokenizer(has_bos=False), None),
        "bpe": (BPETokenizer(tokens, "gpt4", has_bos=False), plain_tiktoken(tokens, "gpt4")),
    }
    vocab_bpe = find_gpt2_vocab(gpt2_folders(), repository.location(MIRROR))
    if vocab_bpe is not None:
        gpt2 = gpt2_tokens(vocab_bpe)
        kinds["gpt2"] = (GPT2Tokenizer(gpt2, has_bos=False), plain_tiktoken(gpt2, "gpt2"))
    print(f"\n{'kind':6} {'MB/s':>8} {'tiktoken':>9} {'ratio':>6} {'bytes/token':>12}")
    for kind, (tokenizer, reference) in kinds.items():
        ours, theirs = speeds(tokenizer, reference, chunks, options.seconds)
        sample = chunks[0]
        density = len(sample.encode()) / len(tokenizer.encode(sample))
        comparison = f"{theirs:9.1f} {ours / theirs:6.2f}" if reference else f"{'':16}"
        print(f"{kind:6} {ours:8.1f} {comparison} {density:12.2f}")


def corpus(file: Path | None, size: int) -> list[str]:
    """Reads or writes about `size` bytes of text, in chunks as the stage encodes them."""
    if file is None:
        # Twenty plays, again and again: writing more would take longer than everything else.
        text = "".join(write_play(0, index).text for index in range(20))
    else:
        text = file.read_bytes().decode()
    text *= -(-size // len(text.encode()))
    text = text.encode()[:size].decode(errors="ignore")
    return split_long(text)


def plain_tiktoken(tokens: list[bytes], pattern: str) -> tiktoken.Encoding:
    ranks = {token: rank for rank, token in enumerate(tokens)}
    return tiktoken.Encoding(
        "plain", pat_str=PATTERNS[pattern], mergeable_ranks=ranks, special_tokens={}
    )


def speeds(
    tokenizer: Tokenizer, reference: tiktoken.Encoding | None, chunks: list[str], seconds: float
) -> tuple[float, float]:
    """Measures the best MB per second of ours and of the reference (0 without one)."""
    encoders: list[Callable[[str], object]] = [tokenizer.encode]
    if reference is not None:
        encoders.append(reference.encode_ordinary)
    sizes = [len(chunk.encode()) / 1e6 for chunk in chunks]
    stream = cycle(zip(chunks, sizes, strict=True))
    for encode in encoders:
        encode(chunks[0][:1000])
    best = [0.0, 0.0]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        batch, spent = [], 0.0
        while spent < 0.5:
            batch.append(next(stream))
            start = time.perf_counter()
            encoders[0](batch[-1][0])
            spent += time.perf_counter() - start
        size = sum(chunk_size for _, chunk_size in batch)
        best[0] = max(best[0], size / spent)
        if len(encoders) > 1:
            start = time.perf_counter()
            for chunk, _ in batch:
                encoders[1](chunk)
            best[1] = max(best[1], size / (time.perf_counter() - start))
    return best[0], best[1]


if __name__ == "__main__":
    main()
