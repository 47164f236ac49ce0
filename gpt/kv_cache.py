"""What a model keeps of the tokens it has read, so that the next one costs one position's work.

    KVCache      of a whole model: keys and values, and what its embeddings need of earlier input
    LayerCache   one layer's view of it, which its attention extends

Not here: when to start again with half a block (generation.py). Shapes are those of
gpt/__init__.py: t new positions, s all positions so far; n = line_sums + 1.
"""

import torch
from torch import Tensor


class LayerCache:
    """One layer's view of a cache, as its attention needs it."""

    def __init__(self, cache: "KVCache", layer: int) -> None:
        self._cache = cache
        self._layer = layer

    def extend(self, k_bhte: Tensor, v_bhte: Tensor) -> tuple[Tensor, Tensor]:
        """Adds new positions; returns the keys and values of all so far, (b, h, s, e) each."""
        return self._cache.extend(self._layer, k_bhte, v_bhte)


class KVCache:
    """Keys and values of all layers, in buffers of `block_size` positions that are made once."""

    def __init__(self, n_layer: int, block_size: int) -> None:
        self.layers = [LayerCache(self, layer) for layer in range(n_layer)]
        self.length = 0  # positions read so far
        self._block_size = block_size
        # Keys of layer 0, its values, keys of layer 1, ..., (b, h, block_size, e) each; and views
        # of their new positions and of all so far, which are made once per step for all layers.
        self._buffers: Tensor | None = None
        self._new: tuple[Tensor, ...] = ()
        self._all: tuple[Tensor, ...] = ()
        self._recent_bt: Tensor | None = None
        self._line: tuple[Tensor, Tensor] | None = None

    def extend(self, layer: int, k_bhte: Tensor, v_bhte: Tensor) -> tuple[Tensor, Tensor]:
        """As in LayerCache; new positions count in `length` once the last layer has them."""
        b, h, t, e = k_bhte.shape
        end = self.length + t
        if layer == 0:
            if self._buffers is None:
                self._buffers = k_bhte.new_empty(2 * len(self.layers), b, h, self._block_size, e)
            self._new = self._buffers[:, :, :, self.length : end].unbind(0)
            self._all = self._buffers[:, :, :, :end].unbind(0)
        if layer == len(self.layers) - 1:
            self.length = end
        self._new[2 * layer].copy_(k_bhte)
        self._new[2 * layer + 1].copy_(v_bhte)
        return self._all[2 * layer], self._all[2 * layer + 1]

    def clear(self) -> None:
        """Forgets everything read and keeps the buffers."""
        self._recent_bt = self._line = None
        self.length = 0

    def reorder(self, sequences_n: Tensor) -> None:
        """Keeps the sequences `sequences_n` (n,) of what was read, each as often as it is named."""
        if self._buffers is not None:
            self._buffers = self._buffers[:, sequences_n]
        if self._recent_bt is not None:
            self._recent_bt = self._recent_bt[sequences_n]
        if self._line is not None:
            since_b1n, begun_b11 = self._line
            self._line = since_b1n[sequences_n], begun_b11[sequences_n]

    def with_recent(self, ids_bt: Tensor, count: int) -> Tensor:
        """`ids_bt` after the up to `count` ids read before it."""
        if self._recent_bt is not None:
            ids_bt = torch.cat([self._recent_bt, ids_bt], dim=1)
        self._recent_bt = ids_bt[:, -count:]
        return ids_bt

    def since_break(
        self, sums_btn: Tensor, since_btn: Tensor, begun_bt1: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sums since the last line break, which may lie in what was read before.

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
