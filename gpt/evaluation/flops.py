"""What a training will take, by arithmetic: parameters, operations, bytes of state.

Knows shapes, not tensors; tests hold it to models that were built, and to PyTorch's own counter.
"""

import math

from gpt.config import ModelConfig, TrainConfig

COLUMNS = 81  # of a line, the unknown one among them
BYTES = 4  # weights, gradients and moments are float32


def parameter_count(model: ModelConfig, vocab_size: int) -> int:
    """All trained numbers of a GPT of this shape."""
    d = model.n_embd
    norm = d * (1 + model.bias)
    norms = 0 if model.architecture == "modern" else 2 * norm
    biases = (3 * d + d + 4 * d + d) * model.bias
    count = model.n_layer * (12 * d * d + biases + norms)
    count += vocab_size * d * (2 if model.architecture == "modern" else 1)
    count += model.ngram_rows * d
    if model.line_sums:
        count += (COLUMNS + 2 * model.line_sums) * d
    if model.architecture == "gpt2":
        count += model.block_size * d + norm
    return count


def flops_per_token(model: ModelConfig, vocab_size: int) -> int:
    """Operations of training on a token: two for each product and sum, forward and backward.

    Matrix products alone, as PaLM's authors count (Chowdhery et al. 2022, appendix B), attention
    over whole blocks. Going backward costs two products for one forward. Look-ups cost none.
    """
    d = model.n_embd
    weights = model.n_layer * 12 * d * d + vocab_size * d + 2 * model.line_sums * d
    attention = model.n_layer * 2 * d * model.block_size
    return 3 * 2 * (weights + attention)


def tokens_of(model: ModelConfig, train: TrainConfig) -> int:
    """Tokens that a whole training sees."""
    return train.steps * train.batch_size * train.gradient_accumulation * model.block_size


def steps_of(model: ModelConfig, train: TrainConfig, vocab_size: int, parameters: int) -> int:
    """The updates of a training: `steps`, or as many as reach `budget`, at least one.

    2e6 tokens           that many tokens are seen, any of them again and again
    20 tokens/parameter  for each of `parameters`; 20 is about compute-optimal for large models
                         (Hoffmann et al. 2022)
    1e15 flops           operations, as `flops_per_token` counts them
    """
    if not train.budget:
        return train.steps
    written, unit = train.budget.split(" ")
    tokens = float(written)
    if unit == "tokens/parameter":
        tokens *= parameters
    elif unit == "flops":
        tokens /= flops_per_token(model, vocab_size)
    a_step = tokens_of(model, train.model_copy(update={"steps": 1}))
    return max(1, math.ceil(tokens / a_step))


def state_bytes(model: ModelConfig, train: TrainConfig, vocab_size: int) -> int:
    """Weights, their gradients, the optimizer's moments and the best weights so far, in bytes.

    AdamW has two moments a weight, Muon one for the matrices of the blocks. Activations come on
    top: they grow with batch_size and block_size.
    """
    count = parameter_count(model, vocab_size)
    matrices = model.n_layer * 12 * model.n_embd**2
    moments = 2 * count - (matrices if train.optimizer == "muon" else 0)
    return BYTES * (3 * count + moments)
