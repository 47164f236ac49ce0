"""Models and tokenizers of the tests, small and with weights that training has not touched."""

import torch

from gpt.checkpoint import RunConfig, TrainedModel
from gpt.config import ModelConfig, TrainConfig
from gpt.device import choose_device
from gpt.model import GPT
from gpt.model_source import make_model
from gpt.tokenizers.base import Tokenizer, line_breaks
from gpt.tokenizers.bpe_training import train_bpe
from gpt.tokenizers.byte_level import BPETokenizer, ByteTokenizer
from gpt.tokenizers.char import CharTokenizer
from gpt.tokenizers.chunking import Pattern

TEXT = (
    "Enter ROMEO, with a rose.\n\nBut soft! what light through yonder window breaks? It's 1597;\n"
    "  the envious moon,\tsick   and pale...  naïve café — 日本語 \U0001f339\n\n\n"
)
MODERN = {"architecture": "modern", "bias": False}
QUICK = {**MODERN, "ngram_rows": 64, "line_sums": 4}  # what the default preset consists of


def small_config(**changes: object) -> ModelConfig:
    return ModelConfig(
        **{"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 16, "bias": True, **changes}
    )


def small_model(config: ModelConfig, tokenizer: Tokenizer) -> GPT:
    """A model in which no bias, gain or residual projection is 0 or 1 any more."""
    breaks = line_breaks(tokenizer)
    model = make_model(config, tokenizer.vocab_size, seed=3, line_breaks=breaks).eval()
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=noise))
    return model


def small_trained_model(config: ModelConfig, tokenizer: Tokenizer) -> TrainedModel:
    device = choose_device("cpu", "float32")
    train = TrainConfig(steps=1, batch_size=1, learning_rate=1e-3, min_learning_rate=0.0)
    run_config = RunConfig(
        model=config,
        vocab_size=tokenizer.vocab_size,
        train=train,
        seed=3,
        data={},
        code_sha256="0" * 64,
        device=device,
        tokenizer_sha256="0" * 64,
    )
    return TrainedModel(small_model(config, tokenizer), tokenizer, run_config, device)


def small_tokenizers() -> dict[str, Tokenizer]:
    """One of each kind that can be exported, with an id for document boundaries."""
    tokenizers: dict[str, Tokenizer] = {
        "char": CharTokenizer("".join(sorted(set(TEXT))), has_bos=True),
        "byte": ByteTokenizer(has_bos=True),
    }
    pattern: Pattern
    for pattern in ("gpt2", "gpt4"):
        tokens = train_bpe([TEXT] * 20, vocab_size=330, pattern=pattern)
        tokenizers[f"bpe {pattern}"] = BPETokenizer(tokens, pattern, has_bos=True)
    return tokenizers
