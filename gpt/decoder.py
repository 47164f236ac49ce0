"""One new position at a time: what `GPT.forward` computes of a single token, in few calls.

Token by token a small model spends its time on calls, not on arithmetic: on modules, on views, on
functions made for whole sequences. So on a CPU the same formulas for t = 1 stand here in NumPy,
whose calls cost a third of PyTorch's; the tests hold both to each other. For inference alone: there
is no dropout.

A larger model spends its time on getting the weights from memory, once a token. They come nearly
twice as fast in long rows (measured: docs/decisions.md), so matrices whose rows are the short side
are copied, up to COPIED bytes of them.

Shapes: b sequences, d = n_embd, h heads, k = d / h, s positions so far, v = vocab_size.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt.cache import Cache, Place
from gpt.int8 import Int8Linear
from gpt.model import GPT, GPT2Block, ModernBlock, OriginalBlock

COPIED = 2**30

EPS = float(np.finfo(np.float32).eps)
SLOPE = -2 * math.sqrt(2 / math.pi)

Array = NDArray[np.float32]
Function = Callable[[Array], Array]


class Decoder:
    """Reads tokens and gives the logits (b, v) after the last; remembers what it has read.

    Several new tokens go through the model itself, a single one the short way. That is known for
    the GPT of gpt/model.py on a CPU; other devices and what is derived from it go the long way. The
    weights may not change as long as a decoder is used.
    """

    def __init__(self, model: GPT) -> None:
        self._model = model
        self._cache = Cache(model.config.n_layer, model.config.block_size)
        self._short = None
        first = next(model.parameters())
        if type(model) is GPT and first.device.type == "cpu" and first.dtype == torch.float32:
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
        config, self._embed = model.config, model.embed
        copied = sum(weight.nbytes for weight in model.parameters()) <= COPIED
        self._embeddings: tuple[Array, Array] | None = None
        if config.architecture == "gpt2" and not config.ngram_rows:
            tokens, positions = model.token_embedding.weight, model.position_embedding.weight
            self._embeddings = tokens.detach().numpy(), positions.detach().numpy()
        self._steps = [_STEPS[config.architecture](block, copied) for block in model.blocks]
        self._norm: Function = lambda x: x
        if config.architecture == "gpt2":
            self._norm = _LayerNorm(model.norm)
        self._turn_tc: NDArray[np.complex64] | None = None
        if config.architecture == "modern":
            self._norm = _rms_norm
            angles = model.angles_at(0, config.block_size)
            self._turn_tc = torch.complex(*angles).numpy()
        if config.architecture == "modern":
            self._head = _product(model.head, copied)
        else:
            self._head = _float_product(model.token_embedding.weight, None, copied)

    def __call__(self, ids_b1: Tensor, cache: Cache) -> Array:
        position = cache.length
        if self._embeddings:
            tokens_vd, positions_td = self._embeddings
            x_bd = tokens_vd[ids_b1.numpy()[:, 0]] + positions_td[position]
        else:
            x_bd = self._embed(ids_b1, position, cache)[:, 0].numpy()
        turn_c = None if self._turn_tc is None else self._turn_tc[position]
        # The exponential in _gelu may go to infinity, and what is divided by it to 0.
        with np.errstate(over="ignore"):
            for step, place in zip(self._steps, cache.places_for_one(), strict=True):
                x_bd = step(x_bd, place, turn_c)
        return self._head(self._norm(x_bd))


class _Step:
    """A block for one position."""

    def __init__(self, block: nn.Module, copied: bool) -> None:
        assert isinstance(block, OriginalBlock | GPT2Block | ModernBlock)
        self.n_head = block.attention.n_head
        linears = block.attention.qkv, block.attention.proj, block.mlp.up, block.mlp.down
        self.qkv, self.proj, self.up, self.down = (_product(linear, copied) for linear in linears)
        if not isinstance(block, ModernBlock):
            self.norm_1, self.norm_2 = _LayerNorm(block.norm_1), _LayerNorm(block.norm_2)

    def __call__(self, x_bd: Array, place: Place, turn_c: NDArray[Any] | None) -> Array:
        """The stream (b, d) after the block; `turn_c` turns pairs of numbers by their position."""
        raise NotImplementedError

    def attention(self, x_bd: Array, place: Place, turn_c: NDArray[Any] | None) -> Array:
        b, d = x_bd.shape
        qkv_b3hk = self.qkv(x_bd).reshape(b, 3, self.n_head, -1)
        if turn_c is not None:
            qk_b2hk = qkv_b3hk[:, :2]
            qk_b2hk *= _scale(qk_b2hk)
            # A product of complex numbers turns a pair.
            pairs_b2hc = qk_b2hk.view(np.complex64)
            pairs_b2hc *= turn_c
        place.new_b2hk[...] = qkv_b3hk[:, 1:]
        q_bh1k = qkv_b3hk[:, 0, :, None]
        scores_bh1s = q_bh1k @ place.keys_bhsk.swapaxes(2, 3)
        scores_bh1s *= scores_bh1s.dtype.type((d // self.n_head) ** -0.5)
        # Below the largest, so that none overflows.
        scores_bh1s -= np.maximum.reduce(scores_bh1s, axis=3, keepdims=True)
        weights_bh1s = np.exp(scores_bh1s, out=scores_bh1s)
        weights_bh1s /= np.add.reduce(weights_bh1s, axis=3, keepdims=True)
        return self.proj((weights_bh1s @ place.values_bhsk).reshape(b, d))


class _OriginalStep(_Step):
    def __call__(self, x_bd: Array, place: Place, turn_c: NDArray[Any] | None) -> Array:
        x_bd = self.norm_1(x_bd + self.attention(x_bd, place, None))
        return self.norm_2(x_bd + self.down(_relu(self.up(x_bd))))


class _GPT2Step(_Step):
    def __call__(self, x_bd: Array, place: Place, turn_c: NDArray[Any] | None) -> Array:
        x_bd = x_bd + self.attention(self.norm_1(x_bd), place, None)
        return x_bd + self.down(_gelu(self.up(self.norm_2(x_bd))))


class _ModernStep(_Step):
    def __call__(self, x_bd: Array, place: Place, turn_c: NDArray[Any] | None) -> Array:
        x_bd = x_bd + self.attention(_rms_norm(x_bd), place, turn_c)
        return x_bd + self.down(np.square(_relu(self.up(_rms_norm(x_bd)))))


_STEPS: dict[str, type[_Step]] = {
    "original": _OriginalStep,
    "gpt2": _GPT2Step,
    "modern": _ModernStep,
}


def _product(linear: nn.Linear | Int8Linear, copied: bool) -> Function:
    """What `linear` computes; where `copied` from a matrix whose rows, as they lie, are long."""
    added: Array | None = None if linear.bias is None else linear.bias.detach().numpy()
    if isinstance(linear, Int8Linear):
        return _int8_product(linear.weight, linear.scale, added)
    return _float_product(linear.weight, added, copied)


def _float_product(weight: Tensor, added: Array | None, copied: bool) -> Function:
    turned: Array = weight.detach().numpy().T
    if copied and turned.shape[1] > turned.shape[0]:
        turned = np.ascontiguousarray(turned)
    if added is None:
        return lambda x: x @ turned
    return lambda x: x @ turned + added


def _int8_product(weight: Tensor, scale: Tensor, added: Array | None) -> Function:
    """By PyTorch's kernel for int8 weights, which takes and gives bfloat16."""
    steps = scale.bfloat16()

    def product(x: Array) -> Array:
        inputs = torch.from_numpy(x).bfloat16()
        y: Array = torch._weight_int8pack_mm(inputs, weight, steps).float().numpy()
        return y if added is None else y + added

    return product


class _LayerNorm:
    def __init__(self, norm: nn.LayerNorm) -> None:
        self._weight: Array = norm.weight.detach().numpy()
        self._bias: Array | None = None if norm.bias is None else norm.bias.detach().numpy()
        self._eps = norm.eps
        d = len(self._weight)
        self._shares_d1 = np.full(
            (d, 1), 1 / d, np.float32
        )  # a product has fewer calls than mean()

    def __call__(self, x_bd: Array) -> Array:
        y_bd = x_bd - x_bd @ self._shares_d1
        y_bd /= np.sqrt(y_bd * y_bd @ self._shares_d1 + self._eps)
        y_bd *= self._weight
        if self._bias is not None:
            y_bd += self._bias
        return y_bd


def _scale(x: Array) -> Array:
    """What `gpt.functional.rms_norm` multiplies x with."""
    squares: Array = np.vecdot(x, x)[..., None]
    squares /= x.shape[-1]
    squares += EPS
    np.sqrt(squares, out=squares)
    np.reciprocal(squares, out=squares)
    return squares


def _rms_norm(x_bd: Array) -> Array:
    return x_bd * _scale(x_bd)


def _relu(x: Array) -> Array:
    np.maximum(x, 0, out=x)
    return x


def _gelu(x: Array) -> Array:
    """As `gpt.functional.gelu`: x sigmoid(u), u = 2 sqrt(2 / pi) (x + 0.044715 x^3)."""
    u = x * x
    u *= 0.044715 * SLOPE
    u += SLOPE
    u *= x
    np.exp(u, out=u)
    u += 1
    np.divide(x, u, out=u)
    return u
