"""Token files, and the batches and windows cut from them.

A batch is a pure function of (seed, step): there is no loader state to save, nothing that an
evaluation in between could disturb, and a resumed training sees what it would have seen.

Shapes: b sequences in a batch, t positions in a block.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt.corpus.manifest import check_sha256, listed_files, split_facts
from gpt.errors import DataError, damaged
from gpt.files import read_json
from gpt.types import Ids


class ShardedIds:
    """The ids of a split that lies in several files, to be read like one array of shape (n,)."""

    def __init__(self, shards: Sequence[Ids]) -> None:
        self._shards = shards
        self._ends = np.cumsum([len(shard) for shard in shards])
        self.dtype = shards[0].dtype

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, wanted: slice | NDArray[np.int64]) -> Ids:
        """The ids of a slice, or of an array of places, in an array of their own."""
        if isinstance(wanted, slice):
            return self._slice(*wanted.indices(len(self)))
        places = wanted.ravel()
        found = np.empty(len(places), self.dtype)
        of_shard = np.searchsorted(self._ends, places, side="right")
        for number in np.unique(of_shard):
            here = of_shard == number
            start = self._ends[number] - len(self._shards[number])
            found[here] = self._shards[number][places[here] - start]
        return found.reshape(wanted.shape)

    def _slice(self, start: int, stop: int, step: int) -> Ids:
        assert step == 1
        pieces = [np.empty(0, self.dtype)]
        for shard, end in zip(self._shards, self._ends, strict=True):
            before = int(end) - len(shard)
            pieces.append(shard[max(0, start - before) : max(0, stop - before)])
        return np.concatenate(pieces)


Tokens = Ids | ShardedIds


def open_tokens(folder: Path, split: str, vocab_size: int) -> Tokens:
    """The ids of a split, memory-mapped, shape (n,); verified against the manifest tokens.json.

    Raises DataError for a file that is damaged or holds ids outside the vocabulary.
    """
    facts = split_facts(folder / "tokens.json", split)
    if "shards" not in facts:
        return _open(folder / f"{split}.npy", facts, vocab_size)
    listed = listed_files(folder / "tokens.json", split, facts)
    return ShardedIds([_open(folder / one["file"], one, vocab_size) for one in listed])


def _open(path: Path, facts: dict[str, Any], vocab_size: int) -> Ids:
    check_sha256(path, facts["sha256"])
    try:
        ids: Ids = np.load(path, mmap_mode="r" if facts.get("tokens") else None, allow_pickle=False)
    except Exception:
        # For a header it does not know NumPy tries old ways, and lets whatever they say through.
        raise damaged(path, "is not a NumPy file") from None
    if ids.ndim != 1 or ids.dtype not in (np.uint16, np.uint32) or len(ids) != facts.get("tokens"):
        raise damaged(
            path, f"holds {ids.dtype} of shape {ids.shape}, not {facts.get('tokens')} ids"
        )
    if len(ids) and int(ids.max()) >= vocab_size:
        raise damaged(path, f"id {int(ids.max())} is outside the vocabulary of {vocab_size}")
    return ids


def manifest(folder: Path) -> dict[str, Any]:
    """tokens.json: the corpus, and of each split tokens, bytes, sha256, information_bits."""
    return read_json(folder / "tokens.json")


@dataclass(frozen=True)
class Part:
    """The tokens of one source, which lie in a row, and its share of what is trained on."""

    corpus: str
    tokens: int
    weight: float


def parts_of(manifest: dict[str, Any]) -> list[Part]:
    """The sources of the training split where they are weighed, in their order."""
    weights = manifest.get("weights", {})
    if not weights:
        return []
    tokens: dict[str, int] = {}  # in the order of the files, which is not that of `weights`
    for shard in manifest["splits"]["train"]["shards"]:
        tokens[shard["corpus"]] = tokens.get(shard["corpus"], 0) + shard["tokens"]
    return [Part(corpus, count, weights[corpus]) for corpus, count in tokens.items()]


class Batches:
    """Random crops of a token file: `batch(step)` gives inputs and targets of shape (b, t).

    With `parts`, a crop comes from a source with the probability of its weight, and from anywhere
    in it.
    """

    def __init__(
        self,
        ids: Tokens,
        *,
        block_size: int,
        batch_size: int,
        seed: int,
        parts: Sequence[Part] = (),
    ) -> None:
        for part in parts or (Part("", len(ids), 1.0),):
            _check_room(part, block_size)
        self._ids = ids
        self._seed = seed
        self._batch_size = batch_size
        self._crop = np.arange(block_size + 1)
        self._starts = len(ids) - block_size
        tokens = np.array([part.tokens for part in parts], np.int64)
        self._first, self._rooms = np.cumsum(tokens) - tokens, tokens - block_size
        weights = np.array([part.weight for part in parts])
        self._shares = weights / weights.sum() if parts else weights

    def batch(self, step: int, part: int = 0) -> tuple[Tensor, Tensor]:
        """Inputs and targets (b, t), int64, of `step`; `part` counts accumulated passes."""
        # Philox is counter-based: a stream for each (seed, step, part), at no cost to skip there.
        draw = np.random.Generator(np.random.Philox(key=self._seed, counter=[0, 0, part, step]))
        if len(self._shares):
            source = draw.choice(len(self._shares), size=self._batch_size, p=self._shares)
            starts = self._first[source] + draw.integers(self._rooms[source])
        else:
            starts = draw.integers(self._starts, size=self._batch_size)
        crops = self._ids[starts[:, None] + self._crop].astype(np.int64)
        crops_bt = torch.from_numpy(crops)
        return crops_bt[:, :-1], crops_bt[:, 1:]


class EpochBatches:
    """Crops that meet every token once before any comes again: an epoch, then another.

    An epoch cuts the text into blocks side by side, from a place of its own on, and takes them in
    an order of its own. As many random crops miss a third of the text and meet another twice or
    more. A batch is still a function of (seed, step, part); `passes` of them make an update.
    """

    def __init__(
        self, ids: Tokens, *, block_size: int, batch_size: int, seed: int, passes: int = 1
    ) -> None:
        _check_room(Part("", len(ids), 1.0), block_size)
        self._ids, self._seed = ids, seed
        self._batch_size, self._passes = batch_size, passes
        self._crop = np.arange(block_size + 1)
        # One block is left out, which makes room for the place where an epoch begins.
        self._blocks = max(1, (len(ids) - 1) // block_size - 1)
        self._places = min(block_size, len(ids) - self._blocks * block_size)
        self._epoch, self._starts = -1, np.empty(0, np.int64)

    def batch(self, step: int, part: int = 0) -> tuple[Tensor, Tensor]:
        """Inputs and targets (b, t), int64, of `step`; `part` counts accumulated passes."""
        first = (step * self._passes + part) * self._batch_size
        numbers = np.arange(first, first + self._batch_size)
        epochs, places = numbers // self._blocks, numbers % self._blocks
        starts = np.empty(self._batch_size, np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            starts[here] = self._starts_of(int(epoch))[places[here]]
        crops = self._ids[starts[:, None] + self._crop].astype(np.int64)
        crops_bt = torch.from_numpy(crops)
        return crops_bt[:, :-1], crops_bt[:, 1:]

    def _starts_of(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            draw = np.random.Generator(np.random.Philox(key=self._seed, counter=[0, 0, 0, epoch]))
            begin = draw.integers(self._places)
            self._starts = begin + draw.permutation(self._blocks) * (len(self._crop) - 1)
            self._epoch = epoch
        return self._starts


def _check_room(part: Part, block_size: int) -> None:
    """Raises DataError where a part of the training split is shorter than a block."""
    if part.tokens < block_size + 1:
        name = f" of {part.corpus}" if part.corpus else ""
        raise DataError(
            f"the training split{name} has {part.tokens} tokens, and a block of "
            f"{block_size} needs {block_size + 1}; use more text or a smaller "
            "model.block_size"
        )


def even_windows(
    ids: Tokens, *, block_size: int, tokens: int, batch_size: int
) -> list[tuple[Tensor, Tensor]]:
    """Batches of inputs and targets (b, t): whole blocks spread evenly, about `tokens` of them.

    Always the same ones, so that two looks at a model differ by the model alone. A split shorter
    than a block gives one short window. Raises DataError where there is nothing to predict.
    """
    if len(ids) < 2:
        raise DataError(
            f"the validation split has {len(ids)} tokens, too few to predict one; "
            "use more text or a larger data.val_fraction"
        )
    block_size = min(block_size, len(ids) - 1)
    blocks = (len(ids) - 1) // block_size
    count = min(blocks, max(1, tokens // block_size))
    starts = np.arange(count) * blocks // count * block_size
    crops = torch.from_numpy(ids[starts[:, None] + np.arange(block_size + 1)].astype(np.int64))
    return [(part[:, :-1], part[:, 1:]) for part in torch.split(crops, batch_size)]
