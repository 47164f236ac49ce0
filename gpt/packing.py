"""Documents packed into the rows of a batch so that each row begins where a document begins.

A crop of the token stream begins anywhere, mostly inside a document, whose beginning the model then
has to guess. Best-fit packing (Ding et al. 2024; nanochat's loader) starts each row with a document
and fills it with others that fit. What is in the way of that are documents longer than a row: only
their beginnings are seen. Losses on the two kinds of rows differ, so a result says which it was.

Shapes: b rows in a batch, t positions in a block, n documents.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt.batches import Part, Tokens
from gpt.errors import DataError

# Tokens looked at together for where documents begin.
CHUNK = 2**24


class PackedBatches:
    """Rows of whole documents: `batch(step)` gives inputs and targets of shape (b, t).

    Like those of `Batches`, a batch is a function of (seed, step, part) alone: its documents are
    drawn at random, as many as make up its tokens. The longest are placed first, each in the row
    that it fills best; what is left of a row is filled with the beginning of one that fits nowhere.
    """

    def __init__(
        self,
        ids: Tokens,
        *,
        bos: int | None,
        block_size: int,
        batch_size: int,
        seed: int,
        parts: Sequence[Part] = (),
    ) -> None:
        if bos is None:
            raise DataError(
                "train.packing best_fit needs several documents, and the corpus is a single one; "
                "set train.packing=stream"
            )
        self._ids, self._seed = ids, seed
        self._row, self._rows = block_size + 1, batch_size
        self._starts_n = document_starts(ids, bos)
        # The last id of the split ends its last document.
        self._lengths_n = np.diff(self._starts_n, append=len(ids) - 1)
        if int(np.minimum(self._lengths_n, self._row).sum()) < self._row:
            raise DataError(
                f"the documents of the training split do not fill a row of {self._row} tokens; "
                "use more text or a smaller model.block_size"
            )
        # Of each source the documents from and to, and how likely one of its documents is drawn.
        bounds = np.searchsorted(self._starts_n, np.cumsum([0, *(part.tokens for part in parts)]))
        self._bounds = bounds if parts else np.array([0, len(self._starts_n)])
        shares = [
            # Weights are shares of the tokens, and a draw is of a document.
            part.weight / self._lengths_n[first:last].mean()
            for part, first, last in zip(parts, self._bounds, self._bounds[1:], strict=False)
        ] or [1.0]
        self._shares = np.array(shares) / sum(shares)

    @property
    def unseen(self) -> float:
        """The share of the split's tokens that lie beyond a row's length in their document."""
        beyond = np.maximum(self._lengths_n - self._row, 0).sum()
        return float(beyond / self._lengths_n.sum())

    def batch(self, step: int, part: int = 0) -> tuple[Tensor, Tensor]:
        """Inputs and targets (b, t), int64, of `step`; `part` counts accumulated passes."""
        draw = np.random.Generator(np.random.Philox(key=self._seed, counter=[0, 0, part, step]))
        rows = [
            np.concatenate([self._ids[start : start + length] for start, length in row])
            for row in self._packed(draw)
        ]
        rows_bt = torch.from_numpy(np.stack(rows).astype(np.int64))
        return rows_bt[:, :-1], rows_bt[:, 1:]

    def _packed(self, draw: np.random.Generator) -> list[list[tuple[int, int]]]:
        """For each row its documents, as (start, length)."""
        rows: list[list[tuple[int, int]]] = [[] for _ in range(self._rows)]
        room = [self._row] * self._rows
        spare: list[tuple[int, int]] = []
        for start, length in sorted(self._drawn(draw), key=lambda document: -document[1]):
            fits = [number for number in range(self._rows) if room[number] >= length]
            if not fits:
                spare.append((start, length))
                continue
            best = min(fits, key=lambda number: room[number])
            rows[best].append((start, length))
            room[best] -= length
        for number, row in enumerate(rows):
            while room[number]:
                start, length = spare.pop(0) if spare else self._one(draw)
                row.append((start, min(length, room[number])))
                room[number] -= row[-1][1]
        return rows

    def _drawn(self, draw: np.random.Generator) -> list[tuple[int, int]]:
        """Random documents, together as long as the batch or just longer."""
        found: list[tuple[int, int]] = []
        missing = self._row * self._rows
        while missing > 0:
            found.append(self._one(draw))
            missing -= found[-1][1]
        return found

    def _one(self, draw: np.random.Generator) -> tuple[int, int]:
        """Where a random document starts, and its length, at most that of a row."""
        source = (
            0 if len(self._shares) == 1 else int(draw.choice(len(self._shares), p=self._shares))
        )
        number = int(draw.integers(self._bounds[source], self._bounds[source + 1]))
        return int(self._starts_n[number]), int(min(self._lengths_n[number], self._row))


def document_starts(ids: Tokens, bos: int) -> NDArray[np.int64]:
    """The places (n,) at which documents begin with `bos`; the last id ends the last of them."""
    found = [
        np.flatnonzero(ids[start : start + CHUNK] == bos) + start
        for start in range(0, len(ids), CHUNK)
    ]
    return np.concatenate(found)[:-1]
