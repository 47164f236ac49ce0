"""Generated tokens per second, compared with nanoGPT's sampler and nanochat's Engine.

    python benchmarks/generation_speed.py [--nanogpt PATH] [--nanochat PATH] [--rounds 3]
                                          [--tokens 500]

PATH is a checkout; without one that generator is left out. All start from one token, with
temperature 0.8 and top_k 200 as nanoGPT's sample.py has them, one text at a time; ours also 20 in
one batch. They take turns, so that a slow spell of the machine hits each. Weights are random, which
the arithmetic does not depend on. nanochat's GPT is its own architecture in float32 with the same
sizes; its cache and its context grow with the text, where ours starts again with half a block.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpt.config import ModelConfig
from gpt.generation import Sampling, generate
from gpt.model import GPT
from gpt.presets import resolve
from gpt.tokenizers.char import CharTokenizer

Generator = Callable[[int], object]  # takes the number of tokens

# Layers, heads, width, block.
SIZES = ((4, 4, 128, 64), (6, 6, 384, 256), (12, 12, 768, 256))
ALPHABET = "\n" + "".join(chr(33 + index) for index in range(64))
DIALS: dict[str, Any] = {"temperature": 0.8, "top_k": 200}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nanogpt", type=Path)
    parser.add_argument("--nanochat", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=500)
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, {options.tokens} tokens per text"
    )
    quick, _, _ = resolve("quick", {}, {})
    assert isinstance(quick, ModelConfig)
    compare("quick", {"ours": ours(quick, 1), "ours, 20 texts": ours(quick, 20)}, options)
    for size in SIZES:
        layers, heads, width, block = size
        config = ModelConfig(n_layer=layers, n_head=heads, n_embd=width, block_size=block)
        generators = {"ours": ours(config, 1), "ours, 20 texts": ours(config, 20)}
        if options.nanogpt:
            generators["nanoGPT"] = nanogpt(options.nanogpt, size)
        if options.nanochat:
            generators["nanochat"] = nanochat(options.nanochat, size)
        compare("/".join(map(str, size[:3])), generators, options)


def compare(name: str, generators: dict[str, Generator], options: argparse.Namespace) -> None:
    """Prints each generator's median speed, and how ours compares with those of one text."""
    seconds: dict[str, list[float]] = {generator: [] for generator in generators}
    for run in generators.values():
        run(32)  # warm up
    for _ in range(options.rounds):
        for generator, run in generators.items():
            start = time.perf_counter()
            run(options.tokens)
            seconds[generator].append(time.perf_counter() - start)
    for generator, times in seconds.items():
        count = options.tokens * (20 if "20" in generator else 1)
        speed = f"{count / statistics.median(times):,.0f} tokens per second"
        ratios = [theirs / own for theirs, own in zip(times, seconds["ours"], strict=True)]
        factor = f"; ours is {statistics.median(ratios):.1f} times as fast"
        print(f"{name} {generator}: {speed}{'' if 'ours' in generator else factor}", flush=True)


def ours(config: ModelConfig, num_samples: int) -> Generator:
    model, tokenizer = GPT(config, 65), CharTokenizer(ALPHABET, has_bos=False)

    def run(tokens: int) -> None:
        sampling = Sampling(max_new_tokens=tokens, **DIALS)
        generate(model, tokenizer, "\n", sampling, seed=1337, indices=range(num_samples))

    return run


def nanogpt(checkout: Path, size: tuple[int, int, int, int]) -> Generator:
    sys.path.insert(0, str(checkout))
    import model as nanogpt  # type: ignore[import-not-found]

    layers, heads, width, block = size
    config = nanogpt.GPTConfig(
        n_layer=layers, n_head=heads, n_embd=width, block_size=block, vocab_size=65, bias=False
    )
    model: Any = nanogpt.GPT(config).eval()
    start = torch.zeros(1, 1, dtype=torch.long)
    return lambda tokens: torch.no_grad()(model.generate)(start, tokens, **DIALS)


def nanochat(checkout: Path, size: tuple[int, int, int, int]) -> Generator:
    os.environ["NANOCHAT_DTYPE"] = "float32"
    sys.path.insert(0, str(checkout))
    from nanochat import engine, gpt  # type: ignore[import-not-found]

    layers, heads, width, block = size
    config = gpt.GPTConfig(
        n_layer=layers, n_head=heads, n_kv_head=heads, n_embd=width, sequence_len=block,
        vocab_size=65, window_pattern="L",
    )  # fmt: skip
    model: Any = gpt.GPT(config)
    model.init_weights()
    # No id ends a text.
    tokenizer = SimpleNamespace(encode_special=lambda text: -1, get_bos_token_id=lambda: -1)
    generator: Any = engine.Engine(model.eval(), tokenizer)
    return lambda tokens: list(generator.generate([0], max_tokens=tokens, **DIALS))


if __name__ == "__main__":
    main()
