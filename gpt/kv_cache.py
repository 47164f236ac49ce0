"""What a model keeps of the tokens it has read, so that the next one costs one position's work.

Shapes: b sequences, h heads, t new positions, s positions so far with them, k numbers a head.
"""

import torch
from torch import Tensor


class LayerCache:
    """One layer's view of a cache, as its attention needs it."""

    def __init__(self, cache: "Cache", layer: int) -> None:
        self._cache = cache
        self._layer = layer

    def extend(self, k_bhtk: Tensor, v_bhtk: Tensor) -> tuple[Tensor, Tensor]:
        """Adds new positions; returns the keys and values of all so far, (b, h, s, k) each."""
        return self._cache.extend(self._layer, k_bhtk, v_bhtk)


class Cache:
    """Keys and values of every layer, and of the input the little that embeddings look back at."""

    def __init__(self, layers: int, size: int) -> None:
        self.layers = [LayerCache(self, layer) for layer in range(layers)]
        self.length = 0  # positions read so far
        self.recent_bt: Tensor | None = None
        self._line: tuple[Tensor, Tensor] | None = None
        self._size = size
        # Made once for `size` positions: (b, layers, keys and values, h, size, k).
        self._kv: Tensor | None = None

    def extend(self, layer: int, k_bhtk: Tensor, v_bhtk: Tensor) -> tuple[Tensor, Tensor]:
        """Adds new positions of a layer; they count as read once the last layer has them."""
        b, h, t, size = k_bhtk.shape
        if self._kv is None:
            self._kv = k_bhtk.new_empty(b, len(self.layers), 2, h, self._size, size)
        end = self.length + t
        keys, values = self._kv[:, layer].unbind(1)
        keys[:, :, self.length : end] = k_bhtk
        values[:, :, self.length : end] = v_bhtk
        if layer == len(self.layers) - 1:
            self.length = end
        return keys[:, :, :end], values[:, :, :end]

    def clear(self) -> None:
        """Forgets everything read and keeps the buffers."""
        self.recent_bt = self._line = None
        self.length = 0

    def reorder(self, rows_n: Tensor) -> None:
        """Goes on from the rows `rows_n` (n,) of what was read; one may be taken several times."""
        if self._kv is not None:
            self._kv = self._kv[rows_n]
        if self.recent_bt is not None:
            self.recent_bt = self.recent_bt[rows_n]
        if self._line is not None:
            since_b1n, begun_b11 = self._line
            self._line = since_b1n[rows_n], begun_b11[rows_n]

    def with_recent(self, ids_bt: Tensor, count: int) -> Tensor:
        """`ids_bt` after the up to `count` ids read before it."""
        if self.recent_bt is not None:
            ids_bt = torch.cat([self.recent_bt, ids_bt], dim=1)
        self.recent_bt = ids_bt[:, -count:]
        return ids_bt

    def since_break(
        self, sums_btn: Tensor, since_btn: Tensor, begun_bt1: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sums since the last line break, where that may lie in what was read before.

        `sums_btn` counts from the first new position, `since_btn` from a break among the new ones,
        where `begun_bt1` says that there is one. Returns the last two for the whole text read.
        """
        if self._line is not None:
            before_b1n, known_b11 = self._line
            carried_btn = torch.where(known_b11, before_b1n + sums_btn, 0.0)
            since_btn = torch.where(begun_bt1, since_btn, carried_btn)
            begun_bt1 = begun_bt1 | known_b11
        self._line = since_btn[:, -1:], begun_bt1[:, -1:]
        return since_btn, begun_bt1
