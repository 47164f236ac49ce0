"""Part 3: the training loop. Written by you; `gpt workshop check 3` tells how far you are.

Shapes: n ids of a text, b sequences in a batch, t = block_size positions, v = vocab_size.
"""

import torch
from torch import Tensor, nn


def split(ids_n: Tensor, val_fraction: float) -> tuple[Tensor, Tensor]:
    """The ids to train on, and the last `val_fraction` of them, held out for validation."""
    raise NotImplementedError


def get_batch(
    ids_n: Tensor, block_size: int, batch_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Inputs (b, t) from random starts in `ids_n`, and targets (b, t): the ids one further."""
    raise NotImplementedError


def loss_of(logits_btv: Tensor, targets_bt: Tensor) -> Tensor:
    """The mean of -ln(probability of the target), in nats per token; a tensor with one element."""
    raise NotImplementedError


def learning_rate_at(step: int, *, steps: int, warmup_steps: int, peak: float, end: float) -> float:
    """The learning rate of `step` (0 to steps - 1).

    Rises in a line, peak * (step + 1) / warmup_steps, to `peak`; then falls along half a cosine,
    whose progress is (step - warmup_steps) / (steps - warmup_steps), towards `end`.
    """
    raise NotImplementedError


def validation_loss(model: nn.Module, ids_n: Tensor, block_size: int) -> float:
    """The mean loss over all full, consecutive blocks of `ids_n`, without dropout or gradients.

    The model is in training mode afterwards.
    """
    raise NotImplementedError


def train(
    model: nn.Module,
    ids_n: Tensor,
    *,
    steps: int,
    batch_size: int,
    block_size: int,
    generator: torch.Generator,
    val_fraction: float = 0.1,
    warmup_steps: int = 10,
    peak: float = 1e-3,
    end: float = 1e-4,
    grad_clip: float = 1.0,
) -> tuple[list[float], float]:
    """Trains `model` by torch.optim.AdamW; returns each step's loss, and the validation loss.

    A step: batch, forward, loss, backward, gradients clipped to the norm `grad_clip`, update with
    the learning rate of the step. Only the training split is trained on.
    """
    raise NotImplementedError


def main() -> None:
    """Trains the model of model.py on input.txt and saves it in model.pt."""
    raise NotImplementedError


if __name__ == "__main__":
    main()
