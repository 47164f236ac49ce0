"""The GPT: a decoder-only transformer. Token ids in, next-token logits at every position out.

Three architectures; each block can be read by itself:

    original  Attention Is All You Need (Vaswani et al. 2017), its decoder without an encoder:
              sinusoidal positions, LayerNorm after each branch, ReLU
    gpt2      GPT-2 (Radford et al. 2019): learned positions, LayerNorm before each branch, GELU
    modern    what small GPTs use today: rotary positions, RMSNorm without gain, normalized queries
              and keys, squared ReLU, branches that start at zero

`original` and `gpt2` share one matrix between token embedding and head; `modern` has its own head.
Optional inputs (n-grams, position in the line) are in extra_embeddings.py; kernels/cpu.py has
faster forms of some formulas. Not here: the update (trainer.py), choosing tokens (generation.py).

Shapes are those of gpt/__init__.py; c is half of a head's size, for `original` half of n_embd.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gpt.config import ModelConfig
from gpt.errors import ParamsError
from gpt.extra_embeddings import LinePosition, NgramEmbedding
from gpt.kernels import cpu
from gpt.kv_cache import KVCache, LayerCache
from gpt.types import ParameterGroups

# False: PyTorch's forms alone. Slower on a CPU, and the last digits differ.
CPU_KERNELS = True

# Added to the mean square. PyTorch's default depends on the dtype, which would make bfloat16
# another function: with its 0.0078, x = 0.05 N(0, 1) comes out with an RMS of 0.49.
NORM_EPS = 2.0**-23

# cos and sin of the rotary angles, (t, c) each.
CosSin = tuple[Tensor, Tensor]

# --- formulas -------------------------------------------------------------------------------------


def cross_entropy(logits_btv: Tensor, targets_bt: Tensor) -> Tensor:
    """Mean loss in nats per token, a scalar, computed in float32."""
    return F.cross_entropy(logits_btv.flatten(0, 1).float(), targets_bt.flatten())


def causal_attention(
    q_bhte: Tensor, k_bhse: Tensor, v_bhse: Tensor, dropout: float = 0.0
) -> Tensor:
    """softmax(q k' / sqrt(e)) v, (b, h, t, e); the t queries are at the last t of s positions, and
    attend to their own and those before."""
    t, s = q_bhte.shape[2], k_bhse.shape[2]
    if CPU_KERNELS and cpu.prefers_dense_attention(q_bhte, k_bhse, dropout):
        return cpu.dense_causal_attention(q_bhte, k_bhse, v_bhse)
    visible_ts = None
    if 1 < t < s:
        visible_ts = torch.ones(t, s, dtype=torch.bool, device=q_bhte.device).tril(s - t)
    return F.scaled_dot_product_attention(
        q_bhte, k_bhse, v_bhse, attn_mask=visible_ts, dropout_p=dropout, is_causal=1 < t == s
    )


def rms_norm(x: Tensor) -> Tensor:
    """x divided by its root mean square over the last dimension (Zhang & Sennrich 2019), which is
    computed in float32 at least."""
    if _use_cpu_kernel(x):
        return cpu.rms_norm(x, NORM_EPS)
    return F.rms_norm(x, x.shape[-1:], eps=NORM_EPS)


def apply_rotary_emb(x_btnhe: Tensor, cos_tc: Tensor, sin_tc: Tensor) -> Tensor:
    """Rotates each pair (2i, 2i + 1) of the last dimension of (b, t, ..., e) by angle i of its
    position (Su et al. 2021)."""
    between = x_btnhe.dim() - 3
    cos = cos_tc.view(cos_tc.shape[0], *between * (1,), -1)
    sin = sin_tc.view(cos.shape)
    pairs = x_btnhe.reshape(*x_btnhe.shape[:-1], -1, 2)
    if CPU_KERNELS and cpu.has_complex(x_btnhe):
        return cpu.rotate_pairs(pairs, cos, sin).flatten(-2)
    even, odd = pairs.unbind(-1)
    rotated = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return rotated.flatten(-2).type_as(x_btnhe)


def relu_squared(x: Tensor) -> Tensor:
    """max(0, x)^2 (So et al. 2021)."""
    return cpu.relu_squared(x) if _use_cpu_kernel(x) else F.relu(x).square()


def gelu(x: Tensor) -> Tensor:
    """GELU in the tanh form that GPT-2 uses (Hendrycks & Gimpel 2016)."""
    return cpu.gelu(x) if _use_cpu_kernel(x) else F.gelu(x, approximate="tanh")


def _use_cpu_kernel(x: Tensor) -> bool:
    return CPU_KERNELS and x.device.type == "cpu" and x.numel() >= cpu.MIN_KERNEL_NUMEL


# --- branches -------------------------------------------------------------------------------------


class CausalSelfAttention(nn.Module):
    """Multi-head attention of a position to itself and those before it.

    With `rope`, queries and keys are normalized (Henry et al. 2020: attention logits are then
    bounded whatever the weights) and rotated by their position.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def init_weights(self, std: float, residual_std: float, rng: torch.Generator) -> None:
        """`proj` writes into the residual stream, so it starts at `residual_std`."""
        normal_init(self.qkv, std, rng)
        normal_init(self.proj, residual_std, rng)

    def forward(
        self, x_btd: Tensor, rope: CosSin | None = None, cache: LayerCache | None = None
    ) -> Tensor:
        b, t, d = x_btd.shape
        # One matmul for queries, keys and values, then one view per head.
        qkv_bt3he = self.qkv(x_btd).view(b, t, 3, self.n_head, d // self.n_head)
        if rope is None:
            q_bhte, k_bhte, v_bhte = qkv_bt3he.permute(2, 0, 3, 1, 4).unbind(0)
        else:
            # Queries and keys in one call each.
            qk_bt2he = apply_rotary_emb(rms_norm(qkv_bt3he[:, :, :2]), *rope)
            q_bhte, k_bhte = qk_bt2he.permute(2, 0, 3, 1, 4).unbind(0)
            v_bhte = qkv_bt3he[:, :, 2].transpose(1, 2)
        if cache is not None:
            k_bhte, v_bhte = cache.extend(k_bhte, v_bhte)
        dropout = self.dropout if self.training else 0.0
        y_bhte = causal_attention(q_bhte, k_bhte, v_bhte, dropout)
        y_btd: Tensor = self.proj(y_bhte.transpose(1, 2).reshape(b, t, d))
        return F.dropout(y_btd, dropout) if dropout else y_btd


class MLP(nn.Module):
    """Two linear layers with a nonlinearity between, four times as wide."""

    def __init__(self, config: ModelConfig, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.activation = activation
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)

    def init_weights(self, std: float, residual_std: float, rng: torch.Generator) -> None:
        """`down` writes into the residual stream, so it starts at `residual_std`."""
        normal_init(self.up, std, rng)
        normal_init(self.down, residual_std, rng)

    def forward(self, x_btd: Tensor) -> Tensor:
        hidden = self.up(x_btd)
        if CPU_KERNELS and self.activation is gelu and cpu.prefers_recomputed_gelu(hidden):
            y_btd = cpu.gelu_linear(hidden, self.down.weight, self.down.bias)
        else:
            y_btd = self.down(self.activation(hidden))
        return F.dropout(y_btd, self.dropout) if self.dropout and self.training else y_btd


@torch.no_grad()
def normal_init(linear: nn.Linear, std: float, rng: torch.Generator) -> None:
    """Weights from N(0, std), bias 0."""
    # A std of 0 draws as well: zero_() here would change every weight initialized after it.
    linear.weight.normal_(0.0, std, generator=rng)
    if linear.bias is not None:
        linear.bias.zero_()


class OriginalBlock(nn.Module):
    """Post-norm: attention, then MLP, each added to the residual stream, which is normalized."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = CausalSelfAttention(config)
        self.norm_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config, F.relu)
        self.norm_2 = nn.LayerNorm(config.n_embd, bias=config.bias)

    def init_weights(self, rng: torch.Generator) -> None:
        """Every matrix as Glorot & Bengio 2010 have it: variance 2 / (rows + columns)."""
        for linear in (self.attention.qkv, self.attention.proj, self.mlp.up, self.mlp.down):
            normal_init(linear, math.sqrt(2 / sum(linear.weight.shape)), rng)

    def forward(self, x_btd: Tensor, rope: None, cache: LayerCache | None = None) -> Tensor:
        x_btd = self.norm_1(x_btd + self.attention(x_btd, cache=cache))
        x_btd = self.norm_2(x_btd + self.mlp(x_btd))
        return x_btd


class GPT2Block(nn.Module):
    """Pre-norm: attention, then MLP, each on the normalized residual stream and added to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attention = CausalSelfAttention(config)
        self.norm_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config, gelu)
        self.std = config.init_std
        # So that the variance of the residual stream does not grow with depth.
        self.residual_std = config.init_std / math.sqrt(2 * config.n_layer)

    def init_weights(self, rng: torch.Generator) -> None:
        """N(0, init_std), smaller by sqrt(2 n_layer) where a branch joins the residual stream."""
        self.attention.init_weights(self.std, self.residual_std, rng)
        self.mlp.init_weights(self.std, self.residual_std, rng)

    def forward(self, x_btd: Tensor, rope: None, cache: LayerCache | None = None) -> Tensor:
        x_btd = x_btd + self.attention(self.norm_1(x_btd), cache=cache)
        x_btd = x_btd + self.mlp(self.norm_2(x_btd))
        return x_btd


class ModernBlock(nn.Module):
    """Pre-norm, with norms that have no weights; each branch initially adds zero."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = CausalSelfAttention(config)
        self.mlp = MLP(config, relu_squared)
        self.std = config.init_std

    def init_weights(self, rng: torch.Generator) -> None:
        """N(0, init_std), and 0 where a branch joins the residual stream."""
        self.attention.init_weights(self.std, 0.0, rng)
        self.mlp.init_weights(self.std, 0.0, rng)

    def forward(self, x_btd: Tensor, rope: CosSin, cache: LayerCache | None = None) -> Tensor:
        x_btd = x_btd + self.attention(rms_norm(x_btd), rope, cache)
        x_btd = x_btd + self.mlp(rms_norm(x_btd))
        return x_btd


BLOCKS = {"original": OriginalBlock, "gpt2": GPT2Block, "modern": ModernBlock}

# Where the first cos or sin of a process is a longer call, PyTorch divides it, and the part of the
# second thread may be inaccurate (docs/reliability.md). So tables are computed in chunks.
MAX_ONE_THREAD_NUMEL = 1024


def position_cos_sin(num_positions: int, size: int, dtype: torch.dtype = torch.float32) -> CosSin:
    """cos and sin (t, c) of t / 10000^(2i/size), c = size / 2; on the CPU even under "meta"."""
    pairs = torch.arange(0, size, 2, dtype=dtype, device="cpu")
    positions = torch.arange(num_positions, dtype=dtype, device="cpu")
    angles_tc = torch.outer(positions, 10_000.0 ** (-pairs / size))
    chunks = torch.split(angles_tc, max(1, MAX_ONE_THREAD_NUMEL // angles_tc.shape[1]))
    return torch.cat([x.cos() for x in chunks]), torch.cat([x.sin() for x in chunks])


# --- the model ------------------------------------------------------------------------------------


class GPT(nn.Module):
    """Embeddings, blocks and a head; the interface of every architecture to the library.

    `seed` decides the initial weights: N(0, init_std) for embeddings (1 / sqrt(n_embd) for
    `original`, which multiplies them by sqrt(n_embd)), 0 for the head of `modern`, and what
    each block says. `line_breaks` are the ids after which a line begins, for `line_sums`.
    """

    cos_tc: Tensor | None
    sin_tc: Tensor | None

    def __init__(
        self, config: ModelConfig, vocab_size: int, seed: int = 0, line_breaks: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        d = config.n_embd
        learned, self.rotary = config.architecture == "gpt2", config.architecture == "modern"
        self.token_embedding = nn.Embedding(vocab_size, d)
        self.ngram_embedding = NgramEmbedding(config, vocab_size) if config.ngram_rows else None
        self.line_position = LinePosition(config, line_breaks) if config.line_sums else None
        self.position_embedding = nn.Embedding(config.block_size, d) if learned else None
        self.norm = nn.LayerNorm(d, bias=config.bias) if learned else None
        self.blocks = nn.ModuleList(self.make_block(config) for _ in range(config.n_layer))
        self.head = nn.Linear(d, vocab_size, bias=False) if self.rotary else None
        self.compute_position_tables()
        self.recompute = False  # True: recompute a block's activations in the backward pass
        self.init_weights(torch.Generator().manual_seed(seed))

    def make_block(self, config: ModelConfig) -> nn.Module:
        """forward(x_btd, rope, cache) and init_weights(rng); for derived models to override."""
        return BLOCKS[config.architecture](config)

    @torch.no_grad()
    def init_weights(self, rng: torch.Generator) -> None:
        """Initial weights in the order of the parameters; each module initializes itself."""
        original = self.config.architecture == "original"
        std = self.config.n_embd**-0.5 if original else self.config.init_std
        self.token_embedding.weight.normal_(0.0, std, generator=rng)
        if self.ngram_embedding is not None:
            self.ngram_embedding.init_weights(std, rng)
        if self.line_position is not None:
            self.line_position.init_weights(std, rng)
        if self.position_embedding is not None:
            self.position_embedding.weight.normal_(0.0, std, generator=rng)
        for block in self.blocks:
            block.init_weights(rng)  # type: ignore[operator]
        if self.head is not None:
            self.head.weight.zero_()

    def forward(self, ids_bt: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits (b, t, v) of the token after each of `ids_bt` (b, t), int64; see hidden_states."""
        return self.unembed(self.hidden_states(ids_bt, cache))

    def hidden_states(self, ids_bt: Tensor, cache: KVCache | None = None) -> Tensor:
        """The residual stream (b, t, d) after the last block.

        With a cache, `ids_bt` continues what it holds and is added to it. Raises ValueError for
        more than block_size positions together.
        """
        start, t = 0 if cache is None else cache.length, ids_bt.shape[1]
        if start + t > self.config.block_size:
            raise ValueError(f"{start + t} positions; block_size is {self.config.block_size}")
        x_btd = self.embed(ids_bt, start, cache)
        if self.training:
            x_btd = F.dropout(x_btd, self.config.dropout)
        rope = self.cos_sin(start, t) if self.rotary else None
        for layer, block in enumerate(self.blocks):
            if self.recompute and self.training:
                x_btd = checkpoint(block, x_btd, rope, use_reentrant=False)
            else:
                x_btd = block(x_btd, rope, None if cache is None else cache.layers[layer])
        return x_btd

    def embed(self, ids_bt: Tensor, start: int = 0, cache: KVCache | None = None) -> Tensor:
        """The residual stream (b, t, d) before the first block; `start` is the first position."""
        t = ids_bt.shape[1]
        x_btd: Tensor = self.token_embedding(ids_bt)
        if self.ngram_embedding is not None:
            x_btd = x_btd + self.ngram_embedding(ids_bt, cache)
        if self.position_embedding is not None:  # gpt2
            return x_btd + self.position_embedding.weight[start : start + t]
        if not self.rotary and (cos_sin := self.cos_sin(start, t)):  # original
            sinusoids_td = torch.stack(cos_sin[::-1], dim=-1).flatten(1)
            return x_btd * math.sqrt(self.config.n_embd) + sinusoids_td
        x_btd = rms_norm(x_btd)  # modern
        if self.line_position is not None:
            x_btd = rms_norm(x_btd + self.line_position(x_btd, ids_bt, cache))
        return x_btd

    def unembed(self, x: Tensor) -> Tensor:
        """Logits (..., v) of the residual stream (..., d) after the last block."""
        if self.head is not None:  # modern
            logits: Tensor = self.head(rms_norm(x))
            return logits
        x = x if self.norm is None else self.norm(x)
        return F.linear(x, self.token_embedding.weight)

    def cos_sin(self, start: int, t: int) -> CosSin | None:
        """cos and sin (t, c) for t positions from `start` on; None for learned positions."""
        if self.cos_tc is None or self.sin_tc is None:
            return None
        return self.cos_tc[start : start + t], self.sin_tc[start : start + t]

    def compute_position_tables(self, dtype: torch.dtype = torch.float32) -> None:
        """Sines and cosines of the positions, in `dtype`; not learned, so in no checkpoint."""
        config, tables = self.config, None
        if self.position_embedding is None:
            size = config.n_embd // config.n_head if self.rotary else config.n_embd
            tables = position_cos_sin(config.block_size, size, dtype)
        self.register_buffer("cos_tc", tables and tables[0], persistent=False)
        self.register_buffer("sin_tc", tables and tables[1], persistent=False)

    def parameter_groups(self) -> ParameterGroups:
        """The parameters by how they are trained, for the optimizers.

        Raises ParamsError for a matrix that a derived model added and that is in no group.
        """
        hidden: list[tuple[Tensor, int]] = []
        for module in self.blocks.modules():
            if isinstance(module, CausalSelfAttention):
                hidden += [(module.qkv.weight, 3), (module.proj.weight, 1)]
            elif isinstance(module, MLP):
                hidden += [(module.up.weight, 1), (module.down.weight, 1)]
        modules = (self.token_embedding, self.position_embedding, self.head)
        embeddings: list[Tensor] = [module.weight for module in modules if module is not None]
        for extra in (self.ngram_embedding, self.line_position):
            embeddings += [] if extra is None else extra.parameters()
        vectors: list[Tensor] = [p for p in self.parameters() if p.ndim < 2]
        stated = [*(id(p) for p, _ in hidden), *map(id, embeddings), *map(id, vectors)]
        for name, parameter in self.named_parameters():
            if (count := stated.count(id(parameter))) != 1:
                raise ParamsError(f"{name}: is in {count} optimizer groups; see parameter_groups()")
        return ParameterGroups(hidden, embeddings, vectors)

    def mlp_down_projections(self) -> list[nn.Linear]:
        """Modules whose input is the activation of an MLP's units: the diagnostics watch these."""
        return [module.down for module in self.modules() if isinstance(module, MLP)]
