"""Weights in eight bits, to write text with: a quarter of the memory, and less to fetch a token.

Each row of a matrix is rounded to 255 steps of its own size (absmax, symmetric; Dettmers et al.
2022 call it row-wise). Embeddings and norms stay as they are. The text of such a model is close to
what the whole model writes, and not the same; as a draft that the whole model checks it costs
nothing of that (gpt/draft.py).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.model import GPT

LARGEST = 127


class Int8Linear(nn.Module):
    """nn.Linear whose matrix (out, in) is `weight * scale[:, None]`: integers, the row's step.

    Made from the matrix and the bias (out,) of another.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, matrix: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        matrix = matrix.detach()
        # A row of zeros has any step.
        scale = (matrix.abs().amax(dim=1) / LARGEST).clamp(min=torch.finfo(matrix.dtype).tiny)
        self.register_buffer("weight", (matrix / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype) * self.scale[:, None], self.bias)


def to_int8(model: GPT) -> GPT:
    """Puts an Int8Linear in the place of every nn.Linear of `model`, which it changes; for eval."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, Int8Linear(child.weight, child.bias))
    return model.eval()
