"""What has been read so far, and the logits of the token after it.

There is no dropout.

Shapes: b sequences, t positions, d = n_embd, v = vocab_size.
"""

import torch
from torch import Tensor, nn

from gpt.kv_cache import Cache
from gpt.model import GPT


class Decoder:
    """Reads tokens and gives the logits (b, v) after the last; remembers what it has read.

    The weights may not change as long as a decoder is used.
    """

    def __init__(self, model: GPT) -> None:
        self._model = model
        self.cache = Cache(model.config.n_layer, model.config.block_size)

    @property
    def length(self) -> int:
        """Positions read so far, at most block_size."""
        return self.cache.length

    def clear(self) -> None:
        """Forgets what was read."""
        self.cache.clear()

    def reorder(self, rows_n: Tensor) -> None:
        """Goes on from the rows `rows_n` (n,) of what was read; one may be taken several times."""
        self.cache.reorder(rows_n)

    def read(self, ids_bt: Tensor) -> Tensor:
        """The logits (b, v) of the token after `ids_bt` (b, t), which go on from what was read."""
        if type(self._model).forward is not GPT.forward:
            logits_btv: Tensor = self._model(ids_bt, self.cache)
            return logits_btv[:, -1]
        # Of many tokens the last one's logits are wanted alone.
        stream_btd = self._model.hidden_states(ids_bt, self.cache)
        return self._model.unembed(stream_btd[:, -1])


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
