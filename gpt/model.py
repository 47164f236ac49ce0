"""The GPT: a decoder-only transformer that gives the next token's logits at every position.

Three architectures stand side by side; each block can be read alone:

    original  Attention Is All You Need (Vaswani et al. 2017), the decoder without an encoder:
              sinusoidal positions, LayerNorm after each branch, a ReLU MLP
    gpt2      GPT-2 (Radford et al. 2019): learned positions, LayerNorm before each branch, GELU
    modern    what small GPTs are built of today: rotary positions, RMSNorm without gain, normalised
              queries and keys, a squared ReLU, branches that begin at zero

The first two share one matrix between token embedding and head; `modern` has a head of its own.

Shapes: b sequences, t positions, d = n_embd, h heads, k = d / h, c = k / 2, v = vocab_size.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gpt.config import ModelConfig
from gpt.extra_embeddings import LinePosition, NgramEmbedding
from gpt.kernels.cpu import (
    causal_attention,
    gelu,
    gelu_not_kept,
    relu_squared,
    rms_norm,
    rotate,
)
from gpt.kv_cache import Cache, LayerCache

# Cosines and sines of the angles (t, c) by which rotary positions turn pairs of numbers.
Angles = tuple[Tensor, Tensor]

# --- branches -------------------------------------------------------------------------------------


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which a position sees itself and what came before it.

    With `angles` queries and keys are normalised (Henry et al. 2020: attention logits are then
    bounded, whatever the weights) and turned by their position (rotary: Su et al. 2021).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(
        self, x_btd: Tensor, angles: Angles | None = None, cache: LayerCache | None = None
    ) -> Tensor:
        b, t, d = x_btd.shape
        # One product for queries, keys and values, then a view a head each.
        qkv_bt3hk = self.qkv(x_btd).view(b, t, 3, self.n_head, d // self.n_head)
        qk_bt2hk, v_bthk = qkv_bt3hk[:, :, :2], qkv_bt3hk[:, :, 2]
        if angles is not None:
            # Queries and keys take the same way, so they take it together.
            qk_bt2hk = rotate(rms_norm(qk_bt2hk), *angles)
        q_bhtk, k_bhtk = qk_bt2hk.permute(2, 0, 3, 1, 4).unbind(0)
        v_bhtk = v_bthk.transpose(1, 2)
        if cache is not None:
            k_bhtk, v_bhtk = cache.extend(k_bhtk, v_bhtk)
        dropout = self.dropout if self.training else 0.0
        y_bhtk = causal_attention(q_bhtk, k_bhtk, v_bhtk, dropout)
        y_btd: Tensor = self.proj(y_bhtk.transpose(1, 2).reshape(b, t, d))
        return F.dropout(y_btd, dropout) if dropout else y_btd


class MLP(nn.Module):
    """Two linear layers with a bend between, four times as wide."""

    def __init__(self, config: ModelConfig, bend: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.bend = bend
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x_btd: Tensor) -> Tensor:
        before = self.up(x_btd)
        after = self.bend(before)
        with gelu_not_kept(before, after) if self.bend is gelu else nullcontext():
            y_btd: Tensor = self.down(after)
        return F.dropout(y_btd, self.dropout) if self.dropout and self.training else y_btd


# --- blocks ---------------------------------------------------------------------------------------


class OriginalBlock(nn.Module):
    """Attention, then MLP, each added to the stream, which is then normalised (post-norm)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = CausalSelfAttention(config)
        self.norm_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config, F.relu)
        self.norm_2 = nn.LayerNorm(config.n_embd, bias=config.bias)

    def forward(self, x_btd: Tensor, angles: None, cache: LayerCache | None = None) -> Tensor:
        x_btd = self.norm_1(x_btd + self.attention(x_btd, cache=cache))
        x_btd = self.norm_2(x_btd + self.mlp(x_btd))
        return x_btd


class GPT2Block(nn.Module):
    """Attention, then MLP, each on the normalised stream and added to it (pre-norm)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attention = CausalSelfAttention(config)
        self.norm_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config, gelu)

    def forward(self, x_btd: Tensor, angles: None, cache: LayerCache | None = None) -> Tensor:
        x_btd = x_btd + self.attention(self.norm_1(x_btd), cache=cache)
        x_btd = x_btd + self.mlp(self.norm_2(x_btd))
        return x_btd


class ModernBlock(nn.Module):
    """Attention, then MLP, each on the normalised stream and added to it (pre-norm)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = CausalSelfAttention(config)
        self.mlp = MLP(config, relu_squared)

    def forward(self, x_btd: Tensor, angles: Angles, cache: LayerCache | None = None) -> Tensor:
        x_btd = x_btd + self.attention(rms_norm(x_btd), angles, cache)
        x_btd = x_btd + self.mlp(rms_norm(x_btd))
        return x_btd


BLOCKS = {"original": OriginalBlock, "gpt2": GPT2Block, "modern": ModernBlock}

# --- positions ------------------------------------------------------------------------------------


def angles_of(positions: int, size: int) -> Tensor:
    """The angle (positions, size / 2) of position t and pair i: t / 10000^(2i/size)."""
    speeds = 10_000.0 ** (-torch.arange(0, size, 2, dtype=torch.float32) / size)
    return torch.outer(torch.arange(positions, dtype=torch.float32), speeds)


# --- the whole ------------------------------------------------------------------------------------


class GPT(nn.Module):
    """What all architectures are to the rest of the library: ids in, logits out.

    `seed` decides the initial weights: N(0, init_std) for matrices, 0 for biases, 1 for norms.
    Where a branch joins the residual stream, `gpt2` draws them smaller by sqrt(2 n_layer), so that
    the stream's variance does not grow with depth; `modern` begins there, and in its head, at 0.
    `original` normalises the stream itself and has matrices of Glorot & Bengio 2010.

    `line_breaks` are the ids after which a line begins, for `line_sums`.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        seed: int = 0,
        line_breaks: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.token_embedding = nn.Embedding(vocab_size, config.n_embd)
        if config.ngram_rows:
            self.ngram_embedding = NgramEmbedding(config, vocab_size)
        if config.line_sums:
            self.line_position = LinePosition(config, line_breaks)
        if config.architecture == "gpt2":
            self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
            self.norm = nn.LayerNorm(config.n_embd, bias=config.bias)
        block = BLOCKS[config.architecture]
        self.blocks = nn.ModuleList(block(config) for _ in range(config.n_layer))
        if config.architecture == "modern":
            self.head = nn.Linear(config.n_embd, vocab_size, bias=False)
        # Whether the backward pass computes a block again rather than keep what it needs of it.
        self.recompute = False
        # Computed, not learned, so they are no part of a checkpoint, and made at first use.
        self._angles: Angles | None = None
        self._initialise(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        config = self.config
        join_std = {"gpt2": config.init_std / math.sqrt(2 * config.n_layer), "modern": 0.0}
        for name, parameter in self.named_parameters():
            std = config.init_std
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.dim() < 2:
                continue
            elif config.architecture == "original":
                # The token embedding is scaled by sqrt(d) on its way in, and so begins at 1.
                rows, columns = parameter.shape
                glorot = math.sqrt(2 / (rows + columns))
                std = config.n_embd**-0.5 if "embedding" in name else glorot
                parameter.normal_(0.0, std, generator=generator)
            elif name.endswith(("proj.weight", "down.weight")):
                parameter.normal_(0.0, join_std[config.architecture], generator=generator)
            elif name in ("head.weight", "line_position.out.weight"):
                parameter.zero_()
            else:
                parameter.normal_(0.0, std, generator=generator)

    def forward(self, ids_bt: Tensor, cache: Cache | None = None) -> Tensor:
        """Logits (b, t, v) of the token after each of `ids_bt` (b, t).

        A cache is as in `stream`, and so is the error.
        """
        return self.logits(self.stream(ids_bt, cache))

    def stream(self, ids_bt: Tensor, cache: Cache | None = None) -> Tensor:
        """The stream (b, t, d) as the last block leaves it.

        With a cache, `ids_bt` goes on from what the cache has read, and is added to it. Both
        together have at most block_size positions; more raise ValueError.
        """
        start, t = 0 if cache is None else cache.length, ids_bt.shape[1]
        if start + t > self.config.block_size:
            raise ValueError(f"{start + t} positions; block_size is {self.config.block_size}")
        x_btd = self.embed(ids_bt, start, cache)
        x_btd = F.dropout(x_btd, self.config.dropout, self.training)
        angles = self.angles_at(start, t) if self.config.architecture == "modern" else None
        for layer, block in enumerate(self.blocks):
            if self.recompute and self.training:
                x_btd = checkpoint(block, x_btd, angles, use_reentrant=False)
            else:
                x_btd = block(x_btd, angles, None if cache is None else cache.layers[layer])
        return x_btd

    def embed(self, ids_bt: Tensor, start: int = 0, cache: Cache | None = None) -> Tensor:
        """The stream (b, t, d) as the first block gets it; `ids_bt` stand at `start` and after."""
        t = ids_bt.shape[1]
        x_btd: Tensor = self.token_embedding(ids_bt)
        if self.config.ngram_rows:
            before = max(NgramEmbedding.SIZES) - 1
            seen_bt = ids_bt if cache is None else cache.with_recent(ids_bt, before)
            x_btd = x_btd + self.ngram_embedding(seen_bt)[:, -t:]
        if self.config.architecture == "gpt2":
            return x_btd + self.position_embedding.weight[start : start + t]
        if self.config.architecture == "original":
            cos_tc, sin_tc = self.angles_at(start, t)
            waves_td = torch.stack([sin_tc, cos_tc], dim=-1).flatten(1)
            return x_btd * math.sqrt(self.config.n_embd) + waves_td
        x_btd = rms_norm(x_btd)
        if self.config.line_sums:
            x_btd = rms_norm(x_btd + self.line_position(x_btd, ids_bt, cache))
        return x_btd

    def logits(self, x: Tensor) -> Tensor:
        """The logits (..., v) of the stream (..., d) as the last block leaves it."""
        if self.config.architecture == "modern":
            y: Tensor = self.head(rms_norm(x))
            return y
        if self.config.architecture == "gpt2":
            x = self.norm(x)
        return F.linear(x, self.token_embedding.weight)

    def angles_at(self, start: int, t: int) -> Angles:
        """Cosines and sines (t, c) for t positions from start on."""
        device = self.token_embedding.weight.device
        if self._angles is None or self._angles[0].device != device:
            config = self.config
            per_head = config.architecture == "modern"
            size = config.n_embd // config.n_head if per_head else config.n_embd
            # Made while writing, they may be used while training, where tensors of inference mode
            # may not.
            with torch.inference_mode(False):
                angles_tc = angles_of(config.block_size, size)
                self._angles = angles_tc.cos().to(device), angles_tc.sin().to(device)
        cos_tc, sin_tc = self._angles
        return cos_tc[start : start + t], sin_tc[start : start + t]
