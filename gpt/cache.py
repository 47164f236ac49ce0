"""What a model keeps of the tokens it has read, so that the next one costs one position's work.

Shapes: b sequences, h heads, t new positions, s positions so far with them, k numbers a head.
"""

import torch
from torch import Tensor


class LayerCache:
    """Keys and values of one layer, in buffers made once for `size` positions."""

    def __init__(self, size: int) -> None:
        self.length = 0
        self._size = size
        self._buffers: tuple[Tensor, Tensor] | None = None

    def extend(self, k_bhtk: Tensor, v_bhtk: Tensor) -> tuple[Tensor, Tensor]:
        """Adds new positions; returns the keys and values of all so far, (b, h, s, k) each."""
        b, h, t, size = k_bhtk.shape
        if self._buffers is None:
            self._buffers = (
                k_bhtk.new_empty(b, h, self._size, size),
                v_bhtk.new_empty(b, h, self._size, size),
            )
        start, self.length = self.length, self.length + t
        keys, values = self._buffers
        keys.narrow(2, start, t).copy_(k_bhtk)
        values.narrow(2, start, t).copy_(v_bhtk)
        return keys.narrow(2, 0, self.length), values.narrow(2, 0, self.length)


class Cache:
    """A cache for each layer, and of the input the little that the embeddings look back at."""

    def __init__(self, layers: int, size: int) -> None:
        self.layers = [LayerCache(size) for _ in range(layers)]
        self.recent_bt: Tensor | None = None
        self._line: tuple[Tensor, Tensor] | None = None

    @property
    def length(self) -> int:
        """Positions read so far."""
        return self.layers[0].length

    def clear(self) -> None:
        """Forgets everything read and keeps the buffers."""
        self.recent_bt = self._line = None
        for layer in self.layers:
            layer.length = 0

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
