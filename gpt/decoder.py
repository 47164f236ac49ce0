"""What has been read so far, and the logits of the token after it.

Many tokens go through the model; few, on a CPU, through the loops of gpt/compiled.py.
There is no dropout.

Shapes: b sequences, t positions, d = n_embd, v = vocab_size.
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

# For fewer tokens of a text, loading the loops takes longer than they save.
COMPILED_FROM = 256

# So many multiplications are done in a few milliseconds, which PyTorch would need for its calls.
FEW = 10**8

# With fewer sequences a second thread costs more than it gains.
SEQUENCES_A_THREAD = 4


class Decoder:
    """Reads tokens and gives the logits (b, v) after the last; remembers what it has read.

    Many new tokens go through the model itself, a few through compiled loops, if that is worth it
    for the `tokens` that a text will have. There are loops for the GPT of gpt/model.py on
    a CPU; other devices and what is derived from it go the long way. The weights may not change as
    long as a decoder is used.
    """

    def __init__(self, model: GPT, *, tokens: int = COMPILED_FROM) -> None:
        self._model = model
        self._cache = Cache(model.config.n_layer, model.config.block_size)
        self._loops = None
        self._weights = sum(weight.numel() for weight in model.blocks.state_dict().values())
        first = next(model.parameters())
        known = type(model) is GPT and first.device.type == "cpu" and first.dtype == torch.float32
        if known and tokens >= COMPILED_FROM:
            self._loops = _Loops(model)

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
        if self._loops and (ids_bt.shape[1] == 1 or ids_bt.numel() * self._weights < FEW):
            return torch.from_numpy(self._loops(ids_bt, self._cache))
        if type(self._model).forward is not GPT.forward:
            logits_btv: Tensor = self._model(ids_bt, self._cache)
            return logits_btv[:, -1]
        # Of many tokens the last one's logits are wanted alone.
        stream_btd = self._model.stream(ids_bt, self._cache)
        return self._model.logits(stream_btd[:, -1])


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


class _Loops:
    """From new ids (b, t) to the logits (b, v) after the last, by gpt/compiled.py.

    Sequences have nothing to do with each other, so each thread takes some of them, if there are
    enough to be worth it. A single one is left to one thread: two that wait for each other at
    every product are slower than one as soon as anything else wants a core.
    """

    def __init__(self, model: GPT) -> None:
        from gpt import compiled  # Numba takes a third of a second, and few texts are so long

        config, self._embed = model.config, model.embed
        self._model = getattr(compiled, config.architecture)
        self._linears = _linears(
            [
                [block.get_submodule(name) for block in model.blocks]
                for name in ("attention.qkv", "attention.proj", "mlp.up", "mlp.down")
            ]
        )
        self._norms = tuple(
            _norms([getattr(block, name, None) for block in model.blocks])
            for name in ("norm_1", "norm_2")
        )
        self._norm = _norms([getattr(model, "norm", None)])
        self._turns_t2c = np.zeros((config.block_size, 2, 0), np.float32)
        self._head = _linear(model.token_embedding.weight)
        if config.architecture == "modern":
            cos_tc, sin_tc = model.angles_at(0, config.block_size)
            self._turns_t2c = torch.stack([cos_tc, sin_tc], dim=1).numpy()
            (self._head,) = _linears([[model.head]])
        self._tables: tuple[Array, Array] | None = None
        if config.architecture == "gpt2" and not config.ngram_rows:
            tokens, positions = model.token_embedding.weight, model.position_embedding.weight
            self._tables = tokens.detach().numpy(), positions.detach().numpy()
        self._heads = config.n_head, config.n_embd // config.n_head
        self._threads = ThreadPoolExecutor(torch.get_num_threads())

    def __call__(self, ids_bt: Tensor, cache: Cache) -> "Array":
        start, (b, t) = cache.length, ids_bt.shape
        if self._tables:
            tokens_vd, positions_td = self._tables
            x_btd = tokens_vd[ids_bt.numpy()] + positions_td[start : start + t]
        else:
            x_btd = self._embed(ids_bt, start, cache).numpy()
        kv_bl2hsk = cache.room_for(b, t, *self._heads)

        def logits(first: int, last: int) -> "Array":
            made: Array = self._model(
                x_btd[first:last], kv_bl2hsk[first:last], start, self._turns_t2c,
                self._linears, self._norms, self._head, self._norm,
            )  # fmt: skip
            return made

        parts = min(torch.get_num_threads(), b // SEQUENCES_A_THREAD)
        if parts < 2:
            return logits(0, b)
        edges = [b * part // parts for part in range(parts + 1)]
        return np.concatenate(list(self._threads.map(logits, edges, edges[1:])))


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
        biases = [linear.bias for linear in linears]
        made.append((weights_loi, _filled(scales, rows, 1.0), _filled(biases, rows, 0.0)))
    return tuple(made)


def _linear(weight: Tensor) -> "Linear":
    rows = len(weight)
    return weight.detach().numpy()[None], _filled([None], rows, 1.0), _filled([None], rows, 0.0)


def _weight(linear: nn.Module) -> NDArray[Any]:
    assert isinstance(linear, nn.Linear | Int8Linear)
    weight: NDArray[Any] = linear.weight.detach().numpy()
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
