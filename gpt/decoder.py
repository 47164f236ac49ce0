"""What has been read so far, and the logits of the token after it.

Many tokens go through the model; few, on a CPU, through the loops of gpt/compiled.py.
There is no dropout.

Shapes: b sequences, t positions, d = n_embd, v = vocab_size.
"""

import torch
from torch import Tensor, nn

from gpt.cache import Cache
from gpt.loops import Loops
from gpt.model import GPT

# For fewer tokens of a text, loading the loops takes longer than they save.
COMPILED_FROM = 256

# So many multiplications are done in a few milliseconds, which PyTorch would need for its calls.
FEW = 10**8


class Decoder:
    """Reads tokens and gives the logits (b, v) after the last; remembers what it has read.

    Many new tokens go through the model itself, a few through compiled loops, if that is worth it
    for the `tokens` that a text will have. There are loops for the GPT of gpt/model.py on
    a CPU; other devices and what is derived from it go the long way. The weights may not change as
    long as a decoder is used.
    """

    def __init__(self, model: GPT, *, tokens: int = COMPILED_FROM) -> None:
        self._model = model
        self.cache = Cache(model.config.n_layer, model.config.block_size)
        self.loops: Loops | None = None
        self.weights = sum(weight.numel() for weight in model.blocks.state_dict().values())
        first = next(model.parameters())
        known = type(model) is GPT and first.device.type == "cpu" and first.dtype == torch.float32
        if known and tokens >= COMPILED_FROM:
            self.loops = Loops(model)

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
        if self.loops and (ids_bt.shape[1] == 1 or ids_bt.numel() * self.weights < FEW):
            return torch.from_numpy(self.loops(ids_bt, self.cache))
        if type(self._model).forward is not GPT.forward:
            logits_btv: Tensor = self._model(ids_bt, self.cache)
            return logits_btv[:, -1]
        # Of many tokens the last one's logits are wanted alone.
        stream_btd = self._model.stream(ids_bt, self.cache)
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
