"""The GPT: a decoder-only transformer that gives the next token's logits at every position.

`GPT2Block` is the block of GPT-2 (Radford et al. 2019): pre-norm, fused causal attention, and a
4x GELU MLP. Positions are learned, and the head is tied to the token embedding.

Shapes: b sequences, t positions, d = n_embd, h heads, k = d / h, v = vocab_size.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.config import ModelConfig


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which a position sees itself and what came before it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x_btd: Tensor) -> Tensor:
        b, t, d = x_btd.shape
        # One product for queries, keys and values, then a view a head each.
        q_bhtk, k_bhtk, v_bhtk = (
            self.qkv(x_btd).view(b, t, 3, self.n_head, d // self.n_head).permute(2, 0, 3, 1, 4)
        )
        y_bhtk = F.scaled_dot_product_attention(
            q_bhtk, k_bhtk, v_bhtk, dropout_p=self.dropout if self.training else 0.0, is_causal=True
        )
        y_btd = y_bhtk.transpose(1, 2).reshape(b, t, d)
        return F.dropout(self.proj(y_btd), self.dropout, self.training)


class MLP(nn.Module):
    """Two linear layers with GELU (the tanh form, as GPT-2 has it) between, four times as wide."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x_btd: Tensor) -> Tensor:
        y_btd = self.down(F.gelu(self.up(x_btd), approximate="tanh"))
        return F.dropout(y_btd, self.dropout, self.training)


class GPT2Block(nn.Module):
    """Attention, then MLP, each on the normalised stream and added to it (pre-norm)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attention = CausalSelfAttention(config)
        self.norm_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x_btd: Tensor) -> Tensor:
        x_btd = x_btd + self.attention(self.norm_1(x_btd))
        x_btd = x_btd + self.mlp(self.norm_2(x_btd))
        return x_btd


class GPT(nn.Module):
    """Token and position embeddings, blocks, a last norm, and the tied head.

    `seed` decides the initial weights, drawn as GPT-2 does: N(0, init_std), and smaller by
    sqrt(2 n_layer) where a branch joins the residual stream, so that the stream's variance does
    not grow with depth; biases 0, norms 1.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.token_embedding = nn.Embedding(vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(GPT2Block(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd, bias=config.bias)
        self._initialise(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        residual_std = self.config.init_std / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif name.endswith(("proj.weight", "down.weight")):
                parameter.normal_(0.0, residual_std, generator=generator)
            elif parameter.dim() == 2:
                parameter.normal_(0.0, self.config.init_std, generator=generator)

    def forward(self, ids_bt: Tensor) -> Tensor:
        """Logits (b, t, v) of the token after each of `ids_bt` (b, t), t <= block_size."""
        t = ids_bt.shape[1]
        x_btd = self.token_embedding(ids_bt) + self.position_embedding.weight[:t]
        x_btd = F.dropout(x_btd, self.config.dropout, self.training)
        for block in self.blocks:
            x_btd = block(x_btd)
        return F.linear(self.norm(x_btd), self.token_embedding.weight)

    def parameter_count(self) -> int:
        """All trained numbers, position embeddings included; the tied head counts once."""
        return sum(parameter.numel() for parameter in self.parameters())


def cross_entropy(logits_btv: Tensor, targets_bt: Tensor) -> Tensor:
    """Mean loss in nats a token, computed in float32."""
    return F.cross_entropy(logits_btv.flatten(0, 1).float(), targets_bt.flatten())
