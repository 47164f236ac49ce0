"""Part 2: the transformer of GPT-2. Written by you; `gpt workshop check 2` tells how far you are.

When it is green:  dvc exp run -S preset=nanogpt-cpu -S model.source=scratchpad/model.py

Shapes: b sequences, t positions, d = n_embd, h heads, k = d / h, v = vocab_size.
"""

from torch import Tensor, nn

from gpt.config import ModelConfig  # n_layer, n_head, n_embd, block_size, dropout, bias, init_std


class CausalSelfAttention(nn.Module):
    """Each position attends to itself and to those before it.

    qkv: nn.Linear(d, 3 d)    queries, keys and values, in this order
    proj: nn.Linear(d, d)     mixes the outputs of the heads
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        raise NotImplementedError

    def forward(self, x_btd: Tensor) -> Tensor:
        """(b, t, d) to (b, t, d)."""
        raise NotImplementedError


class MLP(nn.Module):
    """Transforms each position by itself.

    up: nn.Linear(d, 4 d), GELU, down: nn.Linear(4 d, d)
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        raise NotImplementedError

    def forward(self, x_btd: Tensor) -> Tensor:
        """(b, t, d) to (b, t, d)."""
        raise NotImplementedError


class Block(nn.Module):
    """Attention, then MLP, each on the normalized residual stream and added to it.

    norm_1, norm_2: nn.LayerNorm(d, bias=config.bias); attention, mlp
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        raise NotImplementedError

    def forward(self, x_btd: Tensor) -> Tensor:
        """(b, t, d) to (b, t, d)."""
        raise NotImplementedError


class GPT(nn.Module):
    """Ids in, logits out.

    token_embedding: nn.Embedding(v, d), which is the matrix of the head as well
    position_embedding: nn.Embedding(block_size, d)
    blocks: nn.ModuleList of n_layer blocks; norm: nn.LayerNorm after the last
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        raise NotImplementedError

    def forward(self, ids_bt: Tensor) -> Tensor:
        """Ids (b, t) to logits (b, t, v). Raises ValueError for more than block_size positions."""
        raise NotImplementedError
