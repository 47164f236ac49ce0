"""Tokens written per second, beside nanoGPT's own sampler.

    python benchmarks/writing.py [PATH_TO_NANOGPT] [--rounds 3] [--tokens 500] [--model FOLDER]...

Both write from one token on, temperature 0.8 and top_k 200 as nanoGPT's sample.py has them, one
text at a time; then ours writes 20 in one batch.
All take turns, so that a slow spell of the machine hits each. Without a path ours is measured
alone.

Weights are random, which the arithmetic does not depend on. But a large model's text is drafted
(gpt/draft.py), and how often in vain does depend on what it has learned: of random weights always.
With --model ours are those of a folder data/model with that shape, which for 6/6/384 a short
training makes:

    dvc exp run -S data.corpus=shakespeare -S preset=nanogpt -S train.steps=400 \\
        -S train.batch_size=12 -S train.warmup_steps=20 -S model.dropout=0 -S train.dtype=bfloat16
"""

import argparse
import copy
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


from gpt.checkpoint import load_model
from gpt.config import ModelConfig
from gpt.decoding.decoder import COMPILED_FROM
from gpt.device import choose_device
from gpt.generation import Sampling, generate
from gpt.model import GPT
from gpt.tokenizers.base import Tokenizer
from gpt.tokenizers.char import CharTokenizer

# Layers, heads, width, block: nanoGPT's recipe for a CPU and the one for a GPU; 65 characters.
Shape = tuple[int, int, int, int]
SHAPES: dict[str, Shape] = {"4/4/128": (4, 4, 128, 64), "6/6/384": (6, 6, 384, 256)}
ALPHABET = "\n" + "".join(chr(33 + number) for number in range(64))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("nanogpt", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--model", type=Path, action="append", default=[])
    options = parser.parse_args()
    choose_device("cpu").apply()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, {options.tokens} tokens a text"
    )
    trained = {shape_of(one.model.config): one for one in map(load_model, options.model)}
    for name, shape in SHAPES.items():
        model, tokenizer = untrained(shape)
        if shape in trained:
            model, tokenizer = trained[shape].model, trained[shape].tokenizer
        print(f"{name}: {'trained' if shape in trained else 'random'} weights")
        writers = {
            "ours": our_writer(model, tokenizer, 1),
            "ours, 20 at once": our_writer(model, tokenizer, 20),
        }
        if options.nanogpt:
            writers["nanoGPT"] = their_writer(options.nanogpt, shape)
        seconds = timed(writers, options.tokens, options.rounds)
        for writer, values in seconds.items():
            count = options.tokens * (20 if "20" in writer else 1)
            print(f"{name} {writer}: {count / statistics.median(values):,.0f} tokens/s")
        ours, batch = seconds["ours"], seconds["ours, 20 at once"]
        print(f"{name} 20 texts take {middle_ratio(batch, ours):.2f} times as long as one")
        if "nanoGPT" in seconds:
            times = middle_ratio(seconds["nanoGPT"], ours)
            print(f"{name}: {times:.1f} times as fast as nanoGPT, one text at a time")


def timed(
    writers: dict[str, Callable[[int], None]], tokens: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds of each writer, in turns, after a text long enough that the loops are compiled."""
    seconds: dict[str, list[float]] = {name: [] for name in writers}
    for write in writers.values():
        write(COMPILED_FROM)
    for _ in range(rounds):
        for name, write in writers.items():
            start = time.perf_counter()
            write(tokens)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def middle_ratio(ones: list[float], others: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def shape_of(config: ModelConfig) -> Shape:
    return config.n_layer, config.n_head, config.n_embd, config.block_size


def untrained(shape: Shape) -> tuple[GPT, Tokenizer]:
    layers, heads, width, block = shape
    config = ModelConfig(n_layer=layers, n_head=heads, n_embd=width, block_size=block)
    return GPT(config, 65), CharTokenizer(ALPHABET, has_bos=False)


def our_writer(model: GPT, tokenizer: Tokenizer, count: int) -> Callable[[int], None]:
    model = copy.deepcopy(model).eval()

    def write(tokens: int) -> None:
        sampling = Sampling(max_new_tokens=tokens, temperature=0.8, top_k=200)
        samples = generate(model, tokenizer, "\n", sampling, seed=1337, indices=range(count))
        if any(sample.new_tokens < tokens for sample in samples):
            sys.exit(
                "this model ends its texts: take one of a single document, such as Shakespeare"
            )

    return write


def their_writer(checkout: Path, shape: Shape) -> Callable[[int], None]:
    sys.path.insert(0, str(checkout))
    import model as nanogpt  # type: ignore[import-not-found]

    layers, heads, width, block = shape
    config = nanogpt.GPTConfig(
        n_layer=layers, n_head=heads, n_embd=width, block_size=block, vocab_size=65, bias=False
    )
    model: Any = nanogpt.GPT(config)
    model.eval()

    def write(tokens: int) -> None:
        with torch.no_grad():
            start = torch.zeros(1, 1, dtype=torch.long)
            model.generate(start, tokens, temperature=0.8, top_k=200)

    return write


if __name__ == "__main__":
    main()
