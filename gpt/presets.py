"""Presets: named values of a model and its training, and the overrides of a user."""

from typing import Any

from pydantic import ValidationError

from gpt.config import ModelConfig, TrainConfig, first_line
from gpt.errors import ParamsError

# The workshop's training loop (its part 3): one recipe for its three sizes.
_WORKSHOP_MODEL: dict[str, Any] = {"block_size": 256, "bias": True}
_WORKSHOP: dict[str, Any] = {
    "steps": 5000,
    "batch_size": 64,
    "learning_rate": 1e-3,
    "min_learning_rate": 1e-4,
    "weight_decay": 0.01,
    "beta2": 0.999,
    "eval_every": 100,
}

# What learned fastest in a few minutes of two CPU cores (docs/decisions.md).
_FAST_MODEL: dict[str, Any] = {
    "architecture": "modern",
    "n_layer": 3,
    "n_head": 2,
    "n_embd": 128,
    "block_size": 128,
}
_FAST: dict[str, Any] = {
    "batch_size": 8,
    "packing": "epochs",
    "optimizer": "muon",
    "learning_rate": 5e-3,
    "min_learning_rate": 0.0,
    "muon_learning_rate": 0.02,
    "schedule": "linear",
}

# GPT-2's shapes (Radford et al. 2019, table 2) with nanoGPT's recipe for 124M (its
# config/train_gpt2.py): 2^19 tokens per step, however few of them a GPU holds at once.
_GPT2_TOKENS_PER_STEP = 2**19


def _gpt2(
    layers: int, heads: int, width: int, learning_rate: float, batch: int
) -> dict[str, dict[str, Any]]:
    """Learning rates are GPT-3's for these sizes (Brown et al. 2020, table 2.1)."""
    return {
        "model": {
            "n_layer": layers,
            "n_head": heads,
            "n_embd": width,
            "block_size": 1024,
            "bias": True,
        },
        "train": {
            "steps": 600_000,
            "batch_size": batch,
            "gradient_accumulation": _GPT2_TOKENS_PER_STEP // 1024 // batch,
            "learning_rate": learning_rate,
            "min_learning_rate": learning_rate / 10,
            "warmup_steps": 2000,
            "beta2": 0.95,
            "eval_every": 1000,
            "eval_tokens": 2**20,
        },
    }


PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # The default, tuned on `verse`.
    "quick": {
        "model": {**_FAST_MODEL, "ngram_rows": 4093, "line_sums": 16},
        "train": {**_FAST, "steps": 2400, "eval_every": 300},
    },
    # The best of Shakespeare in the time that `nanogpt-cpu` takes.
    "speedrun": {
        "model": {**_FAST_MODEL, "ngram_rows": 16381},
        "train": {**_FAST, "steps": 1800, "eval_every": 450},
    },
    # The model of gpt/micro.py, for `names`.
    "micro": {
        "model": {"n_layer": 1, "n_head": 4, "n_embd": 16, "block_size": 16, "init_std": 0.08},
        "train": {
            "steps": 1000,
            "batch_size": 8,
            "learning_rate": 0.01,
            "min_learning_rate": 0.0,
            "warmup_steps": 0,
            "weight_decay": 0.0,
            "eval_every": 200,
        },
    },
    # The workshop's three sizes.
    "tiny": {
        "model": {"n_layer": 2, "n_head": 2, "n_embd": 128, **_WORKSHOP_MODEL},
        "train": _WORKSHOP,
    },
    "small": {
        "model": {"n_layer": 4, "n_head": 4, "n_embd": 256, **_WORKSHOP_MODEL},
        "train": _WORKSHOP,
    },
    "medium": {
        "model": {"n_layer": 6, "n_head": 6, "n_embd": 384, **_WORKSHOP_MODEL},
        "train": _WORKSHOP,
    },
    # nanoGPT's config/train_shakespeare_char.py.
    "nanogpt": {
        "model": {"n_layer": 6, "n_head": 6, "n_embd": 384, "block_size": 256, "dropout": 0.2},
        "train": {
            "steps": 5000,
            "batch_size": 64,
            "learning_rate": 1e-3,
            "min_learning_rate": 1e-4,
            "eval_every": 250,
        },
    },
    # The same recipe with the overrides of nanoGPT's README for a CPU.
    "nanogpt-cpu": {
        "model": {"n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": 64},
        "train": {
            "steps": 2000,
            "batch_size": 12,
            "learning_rate": 1e-3,
            "min_learning_rate": 1e-4,
            "eval_every": 250,
        },
    },
    # GPT-2's four sizes; with tokenizer.kind=gpt2 they have its 124, 355, 774 and 1,558 million.
    "gpt2": _gpt2(12, 12, 768, 6e-4, 16),
    "gpt2-medium": _gpt2(24, 16, 1024, 3e-4, 8),
    "gpt2-large": _gpt2(36, 20, 1280, 2.5e-4, 4),
    "gpt2-xl": _gpt2(48, 25, 1600, 2e-4, 4),
}


def resolve(
    preset: str, model: dict[str, Any], train: dict[str, Any]
) -> tuple[ModelConfig, TrainConfig, dict[str, Any]]:
    """The two configurations of `preset` with the keys of `model` and `train` overridden.

    Also returns {key: value} of the overrides that change something, in order. Raises ParamsError
    for an unknown preset or a combination that cannot be built.
    """
    if preset not in PRESETS:
        raise ParamsError(f"params.yaml: preset = {preset!r} is unknown; use {', '.join(PRESETS)}")
    base = PRESETS[preset]
    overridden = {
        key: value
        for section, config, values in (
            ("model", ModelConfig, model),
            ("train", TrainConfig, train),
        )
        for key, value in values.items()
        if value != base[section].get(key, config.model_fields[key].default)
    }
    try:
        model_config = ModelConfig(**{**base["model"], **model})
        train_config = TrainConfig(**{**base["train"], **train})
    except ValidationError as error:
        raise ParamsError(f"params.yaml: {first_line(error)}") from None
    return model_config, train_config, overridden
