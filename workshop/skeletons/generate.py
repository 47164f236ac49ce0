"""Part 4: generation. Written by you; `gpt workshop check 4` tells how far you are.

Shapes: t positions, v = vocab_size.
"""

import torch
from torch import Tensor, nn


def choose(
    logits_v: Tensor,
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    generator: torch.Generator,
) -> int:
    """The next id, sampled from logits (v,).

    temperature 0: the most likely id. Otherwise logits are divided by it; then the `top_k` most
    likely ids are kept (0: all), and of these the fewest, most likely first, whose probabilities
    sum to at least `top_p` (1: all).
    """
    raise NotImplementedError


def generate(
    model: nn.Module,
    ids: list[int],
    max_new_tokens: int,
    *,
    block_size: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator,
) -> list[int]:
    """`ids` and `max_new_tokens` new ones, each chosen after the last `block_size` ids before it.

    Without dropout or gradients.
    """
    raise NotImplementedError


def main() -> None:
    """Writes with the model that train.py saved in model.pt, after a text from the command line."""
    raise NotImplementedError


if __name__ == "__main__":
    main()
