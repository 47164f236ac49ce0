"""Incremental decoding: token ids in, next-token logits out.

    KVCacheDecoder    our GPT: a new token costs one position's work
    UncachedDecoder   any other nn.Module (model.source): the whole context again for every token

Neither has dropout: the model is in eval mode. Not here: choosing the token and stop strings
(generation.py). Shapes are those of gpt/__init__.py.
"""

import torch
from torch import Tensor, nn

from gpt.decoding.inference_view import inference_view, pack_weights
from gpt.kv_cache import KVCache
from gpt.model import GPT

# Packing a model's weights takes the time of about ten tokens.
MIN_PACKED_TOKENS = 128


class KVCacheDecoder:
    """Reads token ids and returns the logits after the last; keeps keys and values.

    The weights must not change while a decoder is used. For many tokens it packs a copy of them.
    """

    def __init__(self, model: GPT, num_tokens: int = 0) -> None:
        self._model = inference_view(model)
        if num_tokens >= MIN_PACKED_TOKENS:
            pack_weights(self._model)
        self.cache = KVCache(model.config.n_layer, model.config.block_size)

    @property
    def length(self) -> int:
        """Number of positions read, at most block_size."""
        return self.cache.length

    def clear(self) -> None:
        """Forgets what was read."""
        self.cache.clear()

    def reorder(self, sequences_n: Tensor) -> None:
        """Keeps the sequences `sequences_n` (n,) of what was read, each as often as it is named."""
        self.cache.reorder(sequences_n)

    def read(self, ids_bt: Tensor) -> Tensor:
        """Logits (b, v) of the token after `ids_bt` (b, t), which continue what was read."""
        if type(self._model).forward is not GPT.forward:
            logits_btv: Tensor = self._model(ids_bt, self.cache)
            return logits_btv[:, -1]
        # The head is applied to the last position alone.
        return self._model.unembed(self._model.hidden_states(ids_bt, self.cache)[:, -1])


class UncachedDecoder:
    """KVCacheDecoder's interface for a model without a cache; a token costs the whole context."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._ids_bt: Tensor | None = None

    @property
    def length(self) -> int:
        """Number of positions read."""
        return 0 if self._ids_bt is None else self._ids_bt.shape[1]

    def clear(self) -> None:
        """Forgets what was read."""
        self._ids_bt = None

    def reorder(self, sequences_n: Tensor) -> None:
        """Keeps the sequences `sequences_n` (n,) of what was read, each as often as it is named."""
        if self._ids_bt is not None:
            self._ids_bt = self._ids_bt[sequences_n]

    def read(self, ids_bt: Tensor) -> Tensor:
        """Logits (b, v) of the token after `ids_bt` (b, t), which continue what was read."""
        if self._ids_bt is not None:
            ids_bt = torch.cat([self._ids_bt, ids_bt], dim=1)
        self._ids_bt = ids_bt
        logits_btv: Tensor = self._model(ids_bt)
        return logits_btv[:, -1]


def make_decoder(model: nn.Module, num_tokens: int) -> KVCacheDecoder | UncachedDecoder:
    """The decoder that reads `num_tokens` of `model`, which has to be in eval mode."""
    return KVCacheDecoder(model, num_tokens) if isinstance(model, GPT) else UncachedDecoder(model)
