"""One text of a larger model: a rounded copy drafts it, and the model reads many tokens at once.

A token costs a large model the reading of all its weights from memory; a dozen tokens cost one such
reading too. So the weights in int8, a quarter of the bytes, write the next dozen one by one, then
the model itself reads them all and draws at each place by the same random number. As long as both
draw the same, that is the text; from the first other token on the draft is thrown away. The text is
therefore the model's own, whatever the draft was worth (but for the last digits of sums, which the
model makes in another order where it reads several tokens). While the model reads a draft, the next
one is written on another thread.

This is speculative decoding (Leviathan et al. 2023), in which one random number a token for both
takes the place of accepting by chance.

Shapes: n tokens of a draft, d = n_embd, v = vocab_size.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gpt.cache import Cache, Mark
from gpt.decoder import Decoder
from gpt.int8 import Int8Linear
from gpt.loops import Loops
from gpt.model import GPT

if TYPE_CHECKING:
    from gpt.compiled import Array

# Tokens of a draft. Reading so many takes the model about as long as the draft of the next, which
# then costs no time; of longer ones more is in vain after another token.
TOKENS = 12

# A token drawn otherwise than in the draft, a miss, costs as much as drafts save in about eleven
# others. With more than half as many they are given up; the first few may be bad luck.
TOKENS_A_MISS = 24
MISSES_AT_FIRST = 8

# Blocks of fewer weights fit in a processor's cache, and need not be fetched from memory.
LARGE = 4_000_000

# Draws from logits (n, v) the text's n new tokens from the given one on, (n,).
Draw = Callable[[Tensor, int], Tensor]


def worth_drafting(model: GPT, decoder: Decoder) -> bool:
    """Whether the model is read by loops, from weights that do not fit in a processor's cache."""
    rounded = any(isinstance(module, Int8Linear) for module in model.modules())
    return decoder.loops is not None and decoder.weights >= LARGE and not rounded


@dataclass(frozen=True)
class _Draft:
    """What was read, `x_1nd`, and which `ids` were drawn after each, the first the text's `number`.

    `marks` is where the draft's cache stood after each was read.
    """

    number: int
    x_1nd: "Array"
    ids: list[int]
    marks: list[Mark]


class Drafter:
    """Writes one text of the decoder's model, by drafts of the same model in int8."""

    def __init__(self, model: GPT, decoder: Decoder, draw: Draw) -> None:
        assert decoder.loops is not None
        self._decoder, self._whole, self._draw = decoder, decoder.loops, draw
        self._rounded = Loops(model, int8=True)
        self._block_size = model.config.block_size
        self._cache = Cache(model.config.n_layer, self._block_size)
        self._thread = ThreadPoolExecutor(1)
        self._misses = self._by_draft = 0

    def write(self, ids: list[int], count: int) -> Iterator[int]:
        """`count` new tokens after `ids`, of which there are from one to block_size.

        As in `generate`, the last half of a block is read again when the block is full. Where
        drafts turn out to be in vain, as with a model that has learned nothing, it does without.
        """
        recent, written = deque(ids, maxlen=max(1, self._block_size // 2)), 0
        whole = self._decoder.cache
        while written < count:
            whole.clear()
            logits_1v = self._decoder.read(torch.tensor([ids]))
            for token in self._until_full(int(self._draw(logits_1v, written)), written, count):
                recent.append(token)
                written += 1
                yield token
            ids = list(recent)

    def _until_full(self, token: int, number: int, count: int) -> Iterator[int]:
        """`token`, the new one of that number, and those behind while the block has room."""
        yield token
        number += 1
        for ids in self._by_drafts(token, number, count):
            yield from ids
            token, number = ids[-1], number + len(ids)
        while self._decoder.length < self._block_size and number < count:
            token = int(self._draw(self._decoder.read(torch.tensor([[token]])), number))
            yield token
            number += 1

    def _by_drafts(self, token: int, number: int, count: int) -> Iterator[list[int]]:
        """What the model itself draws after `token`, draft by draft, while these are worth it."""
        if not self._worth():
            return
        whole = self._decoder.cache
        self._cache.copy_positions(whole, 0, whole.length)
        self._cache.back_to(whole.mark())
        draft = self._drafted(token, number, count)
        while draft:
            drawing = self._beside(self._drawn, draft)
            following = self._drafted(draft.ids[-1], draft.number + len(draft.ids), count)
            ids = drawing.result()
            differs = [one != other for one, other in zip(ids, draft.ids, strict=True)]
            missed = any(differs)
            if missed:
                self._misses += 1
                ids = ids[: differs.index(True) + 1]
                self._cache.back_to(draft.marks[len(ids) - 1])
            start = whole.length - len(draft.ids)
            self._cache.copy_positions(whole, start, start + len(ids))
            whole.back_to(draft.marks[len(ids) - 1])
            self._by_draft += len(ids)
            yield ids
            if missed:
                number = draft.number + len(ids)
                following = self._drafted(ids[-1], number, count) if self._worth() else None
            draft = following

    def _worth(self) -> bool:
        return self._misses < MISSES_AT_FIRST + self._by_draft / TOKENS_A_MISS

    def _drafted(self, token: int, number: int, count: int) -> _Draft | None:
        """As many tokens after `token` as there is room for and as are wanted, if any."""
        read, ids, marks = [], list[int](), list[Mark]()
        room = min(TOKENS, self._block_size - self._cache.length, count - number)
        for place in range(room):
            x_11d = self._rounded.embedded(torch.tensor([[token]]), self._cache)
            logits_1v = torch.from_numpy(self._rounded.after(x_11d, self._cache))
            token = int(self._draw(logits_1v, number + place))
            read.append(x_11d)
            ids.append(token)
            marks.append(self._cache.mark())
        return _Draft(number, np.concatenate(read, axis=1), ids, marks) if ids else None

    def _drawn(self, draft: _Draft) -> list[int]:
        """What the model itself draws at each place of a draft."""
        count = len(draft.ids)
        logits_nv = self._whole.after(draft.x_1nd, self._decoder.cache, wanted=count)
        ids: list[int] = self._draw(torch.from_numpy(logits_nv), draft.number).tolist()
        return ids

    def _beside(self, function: Callable[[_Draft], list[int]], draft: _Draft) -> Future[list[int]]:
        """On a thread of its own, if there may be two; the order of all else is the same."""
        if torch.get_num_threads() > 1:
            return self._thread.submit(function, draft)
        done: Future[list[int]] = Future()
        done.set_result(function(draft))
        return done
