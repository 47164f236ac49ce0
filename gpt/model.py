"""The GPT: a decoder-only transformer that gives the next token's logits at every position.

Two architectures stand side by side; each can be read alone:

    gpt2     GPT-2 (Radford et al. 2019): learned positions, LayerNorm before each branch, a GELU
             MLP, the head tied to the token embedding
    modern   what small GPTs are built of today: rotary positions, RMSNorm without gain, normalised
             queries and keys, a squared-ReLU MLP, branches that begin at zero, a head of its own

Shapes: b sequences, t positions, d = n_embd, h heads, k = d / h, v = vocab_size.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.config import ModelConfig

# --- gpt2 -----------------------------------------------------------------------------------------


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
        y_btd = self.down(gelu(self.up(x_btd)))
        return F.dropout(y_btd, self.dropout, self.training)


def gelu(x: Tensor) -> Tensor:
    """GELU in the tanh form (Hendrycks & Gimpel 2016), any shape."""
    if x.device.type == "cpu":
        return _GeluOnCpu.apply(x)  # type: ignore[no-any-return, no-untyped-call]
    return F.gelu(x, approximate="tanh")


class _GeluOnCpu(torch.autograd.Function):
    """The same function as x * sigmoid(2 c (x + 0.044715 x^3)), c = sqrt(2 / pi).

    PyTorch's own kernel computes tanh on a CPU at about half the speed, forward and backward, and
    took a tenth of a training step.
    """

    CUBIC = 0.044715
    SLOPE = 2 * math.sqrt(2 / math.pi)

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        cls = _GeluOnCpu
        gate = (x * x).mul_(cls.CUBIC * cls.SLOPE).add_(cls.SLOPE).mul_(x).sigmoid_()
        ctx.save_for_backward(x, gate)
        return x * gate

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        cls = _GeluOnCpu
        x, gate = ctx.saved_tensors
        # d(x g)/dx = g (1 + (1 - g) x u'), where g = sigmoid(u(x)).
        slope: Tensor = (x * x).mul_(3 * cls.CUBIC * cls.SLOPE).add_(cls.SLOPE).mul_(x)
        slope.mul_(1 - gate).add_(1).mul_(gate).mul_(gradient)
        return slope


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


# --- modern ---------------------------------------------------------------------------------------


class RotaryAttention(nn.Module):
    """Causal attention whose queries and keys are normalised, then turned by their position.

    Rotary positions: Su et al. 2021. Normalised queries and keys: Henry et al. 2020; attention
    logits are then bounded, whatever the weights.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x_btd: Tensor, cos_tk: Tensor, sin_tk: Tensor) -> Tensor:
        b, t, d = x_btd.shape
        qkv_bt3hk = self.qkv(x_btd).view(b, t, 3, self.n_head, d // self.n_head)
        # Queries and keys take the same way, so they take it together.
        qk_bt2hk = F.rms_norm(qkv_bt3hk[:, :, :2], (d // self.n_head,))
        qk_2bhtk = rotate(qk_bt2hk.permute(2, 0, 3, 1, 4), cos_tk, sin_tk)
        v_bhtk = qkv_bt3hk[:, :, 2].transpose(1, 2)
        q_bhtk, k_bhtk = qk_2bhtk.unbind(0)
        y_bhtk = F.scaled_dot_product_attention(
            q_bhtk, k_bhtk, v_bhtk, dropout_p=self.dropout if self.training else 0.0, is_causal=True
        )
        y_btd = y_bhtk.transpose(1, 2).reshape(b, t, d)
        return F.dropout(self.proj(y_btd), self.dropout, self.training)


def rotate(x_htk: Tensor, cos_tk: Tensor, sin_tk: Tensor) -> Tensor:
    """Turns each pair (i, i + k/2) of the last dimension by the angle of its position."""
    half = x_htk.shape[-1] // 2
    swapped_htk = torch.cat([-x_htk[..., half:], x_htk[..., :half]], dim=-1)
    return x_htk * cos_tk + swapped_htk * sin_tk


def rotary_angles(positions: int, size: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosine and sine (t, k) of the angles by which position t turns pair i: t / base^(2i/k)."""
    speeds = base ** (-torch.arange(0, size, 2, dtype=torch.float32) / size)
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), speeds)
    both = torch.cat([angles, angles], dim=-1)
    return both.cos(), both.sin()


class ReluSquaredMLP(nn.Module):
    """Two linear layers with max(0, x)^2 between (So et al. 2021), four times as wide."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x_btd: Tensor) -> Tensor:
        y_btd = self.down(F.relu(self.up(x_btd)).square())
        return F.dropout(y_btd, self.dropout, self.training)


class ModernBlock(nn.Module):
    """Attention, then MLP, each on the normalised stream and added to it (pre-norm)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = RotaryAttention(config)
        self.mlp = ReluSquaredMLP(config)

    def forward(self, x_btd: Tensor, cos_tk: Tensor, sin_tk: Tensor) -> Tensor:
        d = x_btd.shape[-1]
        x_btd = x_btd + self.attention(F.rms_norm(x_btd, (d,)), cos_tk, sin_tk)
        x_btd = x_btd + self.mlp(F.rms_norm(x_btd, (d,)))
        return x_btd


# --- the whole ------------------------------------------------------------------------------------


class GPT(nn.Module):
    """What both architectures are to the rest of the library: ids in, logits out.

    `seed` decides the initial weights: N(0, init_std) for matrices, 0 for biases, 1 for norms.
    Where a branch joins the residual stream, `gpt2` draws them smaller by sqrt(2 n_layer), so that
    the stream's variance does not grow with depth; `modern` begins there, and in its head, at 0.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.token_embedding = nn.Embedding(vocab_size, config.n_embd)
        if config.architecture == "gpt2":
            self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
            self.blocks = nn.ModuleList(GPT2Block(config) for _ in range(config.n_layer))
            self.norm = nn.LayerNorm(config.n_embd, bias=config.bias)
        else:
            self.blocks = nn.ModuleList(ModernBlock(config) for _ in range(config.n_layer))
            self.head = nn.Linear(config.n_embd, vocab_size, bias=False)
        # Computed, not learned, so they are no part of a checkpoint, and made at first use.
        self._rotary: tuple[Tensor, Tensor] | None = None
        self._initialise(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        std = self.config.init_std
        modern = self.config.architecture == "modern"
        residual_std = 0.0 if modern else std / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif name.endswith(("proj.weight", "down.weight")):
                parameter.normal_(0.0, residual_std, generator=generator)
            elif name == "head.weight":
                parameter.zero_()
            elif parameter.dim() == 2:
                parameter.normal_(0.0, std, generator=generator)

    def forward(self, ids_bt: Tensor) -> Tensor:
        """Logits (b, t, v) of the token after each of `ids_bt` (b, t), t <= block_size."""
        if self.config.architecture == "gpt2":
            return self._forward_gpt2(ids_bt)
        return self._forward_modern(ids_bt)

    def _forward_gpt2(self, ids_bt: Tensor) -> Tensor:
        t = ids_bt.shape[1]
        x_btd = self.token_embedding(ids_bt) + self.position_embedding.weight[:t]
        x_btd = F.dropout(x_btd, self.config.dropout, self.training)
        for block in self.blocks:
            x_btd = block(x_btd)
        return F.linear(self.norm(x_btd), self.token_embedding.weight)

    def _forward_modern(self, ids_bt: Tensor) -> Tensor:
        t, d = ids_bt.shape[1], self.config.n_embd
        cos_tk, sin_tk = self._angles(t)
        x_btd = F.rms_norm(self.token_embedding(ids_bt), (d,))
        x_btd = F.dropout(x_btd, self.config.dropout, self.training)
        for block in self.blocks:
            x_btd = block(x_btd, cos_tk, sin_tk)
        logits_btv: Tensor = self.head(F.rms_norm(x_btd, (d,)))
        return logits_btv

    def _angles(self, t: int) -> tuple[Tensor, Tensor]:
        device = self.token_embedding.weight.device
        if self._rotary is None or self._rotary[0].device != device:
            size = self.config.n_embd // self.config.n_head
            cos_tk, sin_tk = rotary_angles(self.config.block_size, size)
            self._rotary = cos_tk.to(device), sin_tk.to(device)
        cos_tk, sin_tk = self._rotary
        return cos_tk[:t], sin_tk[:t]

    def parameter_count(self) -> int:
        """All trained numbers, position embeddings included; the tied head counts once."""
        return sum(parameter.numel() for parameter in self.parameters())


def cross_entropy(logits_btv: Tensor, targets_bt: Tensor) -> Tensor:
    """Mean loss in nats a token, computed in float32."""
    return F.cross_entropy(logits_btv.flatten(0, 1).float(), targets_bt.flatten())
