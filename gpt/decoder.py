"""What has been read so far, and the logits of the token after it.

Several tokens go through the model; a single one, on a CPU, through the loops of gpt/compiled.py.
There is no dropout.

Shapes: b sequences, t positions, d = n_embd, v = vocab_size.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from gpt.cache import Cache
from gpt.int8 import Int8Linear
from gpt.model import GPT, GPT2Block, ModernBlock, OriginalBlock

if TYPE_CHECKING:
    from gpt.compiled import Array, Linear, Norm

# For fewer tokens of a text, loading the loops takes longer than they save.
COMPILED_FROM = 256


class Decoder:
    """Reads tokens and gives the logits (b, v) after the last; remembers what it has read.

    Several new tokens go through the model itself, a single one through compiled loops, if that is
    worth it for the `tokens` that a text will have. There are loops for the GPT of gpt/model.py on
    a CPU; other devices and what is derived from it go the long way. The weights may not change as
    long as a decoder is used.
    """

    def __init__(self, model: GPT, *, tokens: int = COMPILED_FROM) -> None:
        self._model = model
        self._cache = Cache(model.config.n_layer, model.config.block_size)
        self._short = None
        first = next(model.parameters())
        known = type(model) is GPT and first.device.type == "cpu" and first.dtype == torch.float32
        if known and tokens >= COMPILED_FROM:
            self._short = _ShortWay(model)

    @property
    def length(self) -> int:
        """Positions read so far, at most block_size."""
        return self._cache.length

    def clear(self) -> None:
        """Forgets what was read."""
        self._cache.clear()

    def reorder(self, rows_n: Tensor) -> None:
        """Goes on from the rows `rows_n` (n,) of what was read; one may be taken several times."""
        self._cache.reorder(rows_n)

    def read(self, ids_bt: Tensor) -> Tensor:
        """The logits (b, v) of the token after `ids_bt` (b, t), which go on from what was read."""
        start = self.length
        if self._short is None or not start or ids_bt.shape[1] > 1:
            if type(self._model).forward is not GPT.forward:
                logits_btv: Tensor = self._model(ids_bt, self._cache)
                return logits_btv[:, -1]
            # Of many tokens the last one's logits are wanted alone.
            stream_btd = self._model.stream(ids_bt, self._cache)
            return self._model.logits(stream_btd[:, -1])
        return torch.from_numpy(self._short(ids_bt, self._cache))


class Rereader:
    """The same for any other model, which remembers nothing: it reads everything again."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._seen_bt: Tensor | None = None

    @property
    def length(self) -> int:
        """Positions read so far."""
        return 0 if self._seen_bt is None else self._seen_bt.shape[1]

    def clear(self) -> None:
        """Forgets what was read."""
        self._seen_bt = None

    def reorder(self, rows_n: Tensor) -> None:
        """Goes on from the rows `rows_n` (n,) of what was read; one may be taken several times."""
        if self._seen_bt is not None:
            self._seen_bt = self._seen_bt[rows_n]

    def read(self, ids_bt: Tensor) -> Tensor:
        """The logits (b, v) of the token after `ids_bt` (b, t), which go on from what was read."""
        seen = [] if self._seen_bt is None else [self._seen_bt]
        self._seen_bt = torch.cat([*seen, ids_bt], dim=1)
        logits_btv: Tensor = self._model(self._seen_bt)
        return logits_btv[:, -1]


class _ShortWay:
    """From an id for each sequence (b, 1) to the logits (b, v)."""

    def __init__(self, model: GPT) -> None:
        from gpt import compiled  # Numba takes a third of a second, and few texts are so long

        config, self._embed = model.config, model.embed
        self._block = getattr(compiled, f"{config.architecture}_block")
        self._head = getattr(compiled, f"{config.architecture}_head")
        self._layers = [(_linears(block), _norms(block)) for block in model.blocks]
        self._norm = _norm(getattr(model, "norm", None))
        self._turns_t2c = np.zeros((config.block_size, 2, 0), np.float32)
        self._unembedding = _matrix(model.token_embedding.weight, None, None)
        if config.architecture == "modern":
            cos_tc, sin_tc = model.angles_at(0, config.block_size)
            self._turns_t2c = torch.stack([cos_tc, sin_tc], dim=1).numpy()
            self._unembedding = _linear(model.head)
        self._tables: tuple[Array, Array] | None = None
        if config.architecture == "gpt2" and not config.ngram_rows:
            tokens, positions = model.token_embedding.weight, model.position_embedding.weight
            self._tables = tokens.detach().numpy(), positions.detach().numpy()

    def __call__(self, ids_b1: Tensor, cache: Cache) -> "Array":
        position = cache.length
        if self._tables:
            tokens_vd, positions_td = self._tables
            x_bd = tokens_vd[ids_b1.numpy()[:, 0]] + positions_td[position]
        else:
            x_bd = self._embed(ids_b1, position, cache).flatten(1).numpy()
        turn_2c = self._turns_t2c[position]
        for kv_b2hsk, layer in zip(cache.room_for_one(), self._layers, strict=True):
            x_bd = self._block(x_bd, kv_b2hsk, position, turn_2c, *layer)
        logits_bv: Array = self._head(x_bd, self._unembedding, self._norm)
        return logits_bv


def _linears(block: nn.Module) -> "tuple[Linear, ...]":
    assert isinstance(block, OriginalBlock | GPT2Block | ModernBlock)
    linears = block.attention.qkv, block.attention.proj, block.mlp.up, block.mlp.down
    return tuple(_linear(linear) for linear in linears)


def _linear(linear: nn.Linear | Int8Linear) -> "Linear":
    scale = linear.scale if isinstance(linear, Int8Linear) else None
    return _matrix(linear.weight, scale, linear.bias)


def _matrix(weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> "Linear":
    rows = len(weight)
    return (
        weight.detach().numpy(),
        np.ones(rows, np.float32) if scale is None else scale.numpy(),
        np.zeros(rows, np.float32) if bias is None else bias.detach().numpy(),
    )


def _norms(block: nn.Module) -> "tuple[Norm, Norm]":
    return _norm(getattr(block, "norm_1", None)), _norm(getattr(block, "norm_2", None))


def _norm(norm: nn.LayerNorm | None) -> "Norm":
    """Its weight and bias; of none, empty ones."""
    if norm is None:
        return np.empty(0, np.float32), np.empty(0, np.float32)
    weight: Array = norm.weight.detach().numpy()
    return weight, np.zeros_like(weight) if norm.bias is None else norm.bias.detach().numpy()
