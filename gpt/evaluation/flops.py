"""Arithmetic before a training: FLOPs, tokens, updates, and bytes of state.

Knows configs and counts, not tensors; tests compare it with PyTorch's own counter.
"""

import math

from gpt.config import ModelConfig, TrainConfig
from gpt.errors import ParamsError


def flops_per_token(model: ModelConfig, vocab_size: int) -> int:
    """FLOPs of training on one token, forward and backward.

    As PaLM's authors count (Chowdhery et al. 2022, appendix B): matmuls alone, 2 FLOPs per
    multiplication and addition, attention over full blocks, and twice the forward pass for the
    backward pass. Embedding lookups cost nothing.
    """
    d = model.n_embd
    weights = model.n_layer * 12 * d * d + vocab_size * d + 2 * model.line_sums * d
    attention = model.n_layer * 2 * d * model.block_size
    return 3 * 2 * (weights + attention)


def tokens_per_step(model: ModelConfig, train: TrainConfig) -> int:
    """Tokens of one update, over all micro-steps and processes."""
    return train.batch_size * train.gradient_accumulation * model.block_size


def steps_of(model: ModelConfig, train: TrainConfig, vocab_size: int, parameters: int) -> int:
    """Updates of a training: `train.steps`, or at least one and enough to spend `train.budget`.

    2e6 tokens           tokens seen, repetitions included
    20 tokens/parameter  tokens seen per parameter; 20 is about compute-optimal for large models
                         (Hoffmann et al. 2022)
    1e15 flops           as `flops_per_token` counts them

    Raises ParamsError for a budget beyond what floats can count.
    """
    if not train.budget:
        return train.steps
    amount, unit = train.budget.split(" ")
    tokens = float(amount)
    if unit == "tokens/parameter":
        tokens *= parameters
    elif unit == "flops":
        tokens /= flops_per_token(model, vocab_size)
    if math.isinf(tokens):
        raise ParamsError(f"train.budget = {train.budget}: is infinite; write a smaller number")
    return max(1, math.ceil(tokens / tokens_per_step(model, train)))


def state_bytes(parameters: int, muon_parameters: int = 0) -> int:
    """Bytes of the weights, their gradients, the optimizer's moments and the best weights so far.

    All are float32. AdamW has two moments per parameter, Muon one. Activations, which grow with
    batch_size and block_size, are not included.
    """
    return 4 * (5 * parameters - muon_parameters)
