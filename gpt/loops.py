"""A GPT's weights as the loops of gpt/compiled.py want them, and its logits by these loops.

Shapes: b sequences, t new positions, d = n_embd, v = vocab_size; l layers, o outputs, i inputs.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt.cache import Cache
from gpt.int8 import Int8Linear
from gpt.model import GPT

if TYPE_CHECKING:
    from gpt.compiled import Array, Linear, Norm

# With fewer sequences a second thread costs more than it gains.
SEQUENCES_A_THREAD = 4


class Loops:
    """From new ids (b, t) to the logits (b, v) after the last, by gpt/compiled.py.

    `int8` rounds every matrix, as in gpt/int8.py; the model stays as it is.

    Sequences have nothing to do with each other, so each thread takes some of them, if there are
    enough to be worth it. A single one is left to one thread: two that wait for each other at
    every product are slower than one as soon as anything else wants a core.
    """

    def __init__(self, model: GPT, *, int8: bool = False) -> None:
        from gpt import compiled  # Numba takes a third of a second, and few texts are so long

        config, self._embed = model.config, model.embed
        self._model = getattr(compiled, config.architecture)
        kinds = [
            [block.get_submodule(name) for block in model.blocks]
            for name in ("attention.qkv", "attention.proj", "mlp.up", "mlp.down")
        ]
        head: nn.Module = model.head if config.architecture == "modern" else model.token_embedding
        if int8:
            kinds, head = [[_rounded(one) for one in kind] for kind in kinds], _rounded(head)
        self._linears = _linears(kinds)
        self._head = _linear(head)
        self._norms = tuple(
            _norms([getattr(block, name, None) for block in model.blocks])
            for name in ("norm_1", "norm_2")
        )
        self._norm = _norms([getattr(model, "norm", None)])
        self._turns_t2c = np.zeros((config.block_size, 2, 0), np.float32)
        if config.architecture == "modern":
            cos_tc, sin_tc = model.angles_at(0, config.block_size)
            self._turns_t2c = torch.stack([cos_tc, sin_tc], dim=1).numpy()
        self._tables: tuple[Array, Array] | None = None
        if config.architecture == "gpt2" and not config.ngram_rows:
            tokens, positions = model.token_embedding.weight, model.position_embedding.weight
            self._tables = tokens.detach().numpy(), positions.detach().numpy()
        self._heads = config.n_head, config.n_embd // config.n_head
        self._threads = ThreadPoolExecutor(torch.get_num_threads())

    def __call__(self, ids_bt: Tensor, cache: Cache) -> "Array":
        """The logits (b, v); `cache` gets the new positions."""
        return self.after(self.embedded(ids_bt, cache), cache)

    def embedded(self, ids_bt: Tensor, cache: Cache) -> "Array":
        """The first block's input (b, t, d) for the next ids after those that `cache` has."""
        if self._tables:
            tokens_vd, positions_td = self._tables
            start, t = cache.length, ids_bt.shape[1]
            x_btd: Array = tokens_vd[ids_bt.numpy()] + positions_td[start : start + t]
            return x_btd
        embedded: Array = self._embed(ids_bt, cache.length, cache).numpy()
        return embedded

    def after(self, x_btd: "Array", cache: Cache, *, wanted: int = 1) -> "Array":
        """The logits (b wanted, v) after the last `wanted` positions; `cache` gets the new ones."""
        start, (b, t, _) = cache.length, x_btd.shape
        kv_bl2hsk = cache.room_for(b, t, *self._heads)

        def logits(first: int, last: int) -> "Array":
            made: Array = self._model(
                x_btd[first:last], kv_bl2hsk[first:last], start, wanted, self._turns_t2c,
                self._linears, self._norms, self._head, self._norm,
            )  # fmt: skip
            return made

        parts = min(torch.get_num_threads(), b // SEQUENCES_A_THREAD)
        if parts < 2:
            return logits(0, b)
        edges = [b * part // parts for part in range(parts + 1)]
        return np.concatenate(list(self._threads.map(logits, edges, edges[1:])))


def _rounded(module: nn.Module) -> Int8Linear:
    if isinstance(module, Int8Linear):
        return module
    assert isinstance(module, nn.Linear | nn.Embedding)
    return Int8Linear(module.weight, getattr(module, "bias", None))


def _linears(kinds: Sequence[Sequence[nn.Module]]) -> "tuple[Linear, ...]":
    """Of each kind of matrix those of all layers.

    All in one piece of memory, for which NumPy asks the system for large pages: read in the order
    in which it lies, it comes a fifth faster than matrix by matrix.
    """
    weights = [[_weight(linear) for linear in kind] for kind in kinds]
    room = np.empty(sum(one.size for kind in weights for one in kind), weights[0][0].dtype)
    made = []
    for linears, layers in zip(kinds, weights, strict=True):
        count = len(layers) * layers[0].size
        weights_loi = room[:count].reshape(len(layers), *layers[0].shape)
        np.stack(layers, out=weights_loi)
        room = room[count:]
        rows = layers[0].shape[0]
        scales = [getattr(linear, "scale", None) for linear in linears]
        biases = [getattr(linear, "bias", None) for linear in linears]
        made.append((weights_loi, _filled(scales, rows, 1.0), _filled(biases, rows, 0.0)))
    return tuple(made)


def _linear(module: nn.Module) -> "Linear":
    """One matrix, where it lies."""
    weight_oi, rows = _weight(module), len(_weight(module))
    scale, bias = getattr(module, "scale", None), getattr(module, "bias", None)
    return weight_oi[None], _filled([scale], rows, 1.0), _filled([bias], rows, 0.0)


def _weight(module: nn.Module) -> NDArray[Any]:
    assert isinstance(module, nn.Linear | Int8Linear | nn.Embedding)
    weight: NDArray[Any] = module.weight.detach().numpy()
    return weight


def _filled(vectors: Sequence[Any], size: int, value: float) -> "Array":
    """The vectors (l, size), `value` in place of one that is not there."""
    filled = [
        np.full(size, value, np.float32) if vector is None else vector.detach().numpy()
        for vector in vectors
    ]
    return np.stack(filled)


def _norms(norms: Sequence[nn.LayerNorm | None]) -> "Norm":
    """Their weights and biases; of none, empty ones."""
    weights = [np.empty(0, np.float32) if n is None else n.weight.detach().numpy() for n in norms]
    biases = [
        np.zeros_like(weight) if norm is None or norm.bias is None else norm.bias.detach().numpy()
        for norm, weight in zip(norms, weights, strict=True)
    ]
    return np.stack(weights), np.stack(biases)
