"""Token files, and the batches that a training reads from them.

    open_tokens  the ids of a split, memory-mapped and verified
    RandomCrops, Epochs, BestFit
                 three orders in which a training reads them, each a BatchSource (train.packing)
    val_batches  the blocks on which a training is evaluated, always the same ones

Not here: what the ids stand for (gpt/tokenizers), what is done with a batch (gpt/trainer.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt.config import TrainConfig
from gpt.corpus.manifest import check_sha256, shard_entries, split_entry
from gpt.errors import DataError, damaged
from gpt.files import read_json
from gpt.types import Ids

# Ids that are searched for document starts at a time.
SCANNED_AT_ONCE = 2**24


class ShardedIds:
    """The ids of a split that lies in several files, indexed like one array of shape (n,)."""

    def __init__(self, shards: Sequence[Ids]) -> None:
        self._shards = shards
        self._ends = np.cumsum([len(shard) for shard in shards])
        self.dtype = shards[0].dtype

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: slice | NDArray[np.int64]) -> Ids:
        """A copy of the ids in a slice, or at an array of offsets of any shape."""
        if isinstance(index, slice):
            return self._slice(*index.indices(len(self)))
        offsets_n = index.ravel()
        ids_n = np.empty(len(offsets_n), self.dtype)
        shard_n = np.searchsorted(self._ends, offsets_n, side="right")
        for shard in np.unique(shard_n):
            in_shard_n = shard_n == shard
            start = self._ends[shard] - len(self._shards[shard])
            ids_n[in_shard_n] = self._shards[shard][offsets_n[in_shard_n] - start]
        return ids_n.reshape(index.shape)

    def _slice(self, start: int, stop: int, step: int) -> Ids:
        assert step == 1
        slices = [np.empty(0, self.dtype)]
        for shard, end in zip(self._shards, self._ends, strict=True):
            before = int(end) - len(shard)
            slices.append(shard[max(0, start - before) : max(0, stop - before)])
        return np.concatenate(slices)


Tokens = Ids | ShardedIds


def open_tokens(folder: Path, split: str, vocab_size: int) -> Tokens:
    """The ids of a split, memory-mapped, shape (n,); verified against the manifest tokens.json.

    Raises DataError for a file that is damaged or holds ids outside the vocabulary.
    """
    metadata = split_entry(folder / "tokens.json", split)
    if "shards" not in metadata:
        return _open(folder / f"{split}.npy", metadata, vocab_size)
    shards = shard_entries(folder / "tokens.json", split, metadata)
    return ShardedIds([_open(folder / shard["file"], shard, vocab_size) for shard in shards])


def _open(path: Path, metadata: dict[str, Any], vocab_size: int) -> Ids:
    check_sha256(path, metadata["sha256"])
    tokens = metadata.get("tokens")
    try:
        ids: Ids = np.load(path, mmap_mode="r" if tokens else None, allow_pickle=False)
    except Exception:
        # For a header it does not know NumPy tries old formats, and any of their errors gets out.
        raise damaged(path, "is not a NumPy file") from None
    if ids.ndim != 1 or ids.dtype not in (np.uint16, np.uint32) or len(ids) != tokens:
        raise damaged(path, f"holds {ids.dtype} of shape {ids.shape}, not {tokens} ids")
    if len(ids) and int(ids.max()) >= vocab_size:
        raise damaged(path, f"id {int(ids.max())} is outside the vocabulary of {vocab_size}")
    return ids


def manifest(folder: Path) -> dict[str, Any]:
    """tokens.json: the corpus, and for each split tokens, bytes, sha256, information_bits."""
    return read_json(folder / "tokens.json")


# --- the order in which a training reads the tokens -----------------------------------------------


class BatchSource(Protocol):
    """What a Trainer reads: RandomCrops, Epochs, BestFit, or something of your own."""

    def batch(self, step: int, micro_step: int = 0) -> tuple[Tensor, Tensor]:
        """Inputs and targets, int64 (b, t): a pure function of (seed, step, micro_step).

        So there is no loader state to save, and an evaluation in between changes nothing.
        """
        ...


@dataclass(frozen=True)
class WeightedSource:
    """The consecutive tokens of one corpus, and its weight in what is trained on."""

    corpus: str
    tokens: int
    weight: float


def weighted_sources(manifest: dict[str, Any]) -> list[WeightedSource]:
    """The sources of the training split in the order of its files; empty without data.weights."""
    weights = manifest.get("weights", {})
    if not weights:
        return []
    tokens: dict[str, int] = {}
    for shard in manifest["splits"]["train"]["shards"]:
        tokens[shard["corpus"]] = tokens.get(shard["corpus"], 0) + shard["tokens"]
    return [WeightedSource(corpus, count, weights[corpus]) for corpus, count in tokens.items()]


def make_batches(
    ids: Tokens,
    sources: Sequence[WeightedSource],
    train: TrainConfig,
    block_size: int,
    seed: int,
    bos: int | None,
) -> BatchSource:
    """The batches of `train.packing`. Raises DataError where these tokens do not allow it."""
    if train.packing == "epochs":
        if sources:
            raise DataError(
                "train.packing = epochs reads each token once, whatever data.weights say; set "
                "data.weights=[] or train.packing=stream"
            )
        return Epochs(
            ids,
            block_size=block_size,
            batch_size=train.batch_size,
            seed=seed,
            micro_steps=train.gradient_accumulation,
        )
    shape: dict[str, Any] = {"block_size": block_size, "batch_size": train.batch_size}
    if train.packing == "best_fit":
        return BestFit(ids, bos=bos, **shape, seed=seed, sources=sources)
    return RandomCrops(ids, **shape, seed=seed, sources=sources)


class RandomCrops:
    """Crops of the token stream from random offsets.

    With `sources`, a crop comes from a source with the probability of its weight.
    """

    def __init__(
        self,
        ids: Tokens,
        *,
        block_size: int,
        batch_size: int,
        seed: int,
        sources: Sequence[WeightedSource] = (),
    ) -> None:
        for source in sources or (WeightedSource("", len(ids), 1.0),):
            _check_length(source, block_size)
        self.sources = sources
        self._ids, self._seed = ids, seed
        self._block_size, self._batch_size = block_size, batch_size
        tokens = np.array([source.tokens for source in sources], np.int64)
        self._source_start = np.cumsum(tokens) - tokens
        self._num_starts = tokens - block_size
        weights = np.array([source.weight for source in sources])
        self._probabilities = weights / weights.sum() if sources else None

    def batch(self, step: int, micro_step: int = 0) -> tuple[Tensor, Tensor]:
        rng = _rng(self._seed, step, micro_step)
        if self._probabilities is None:
            starts_b = rng.integers(len(self._ids) - self._block_size, size=self._batch_size)
        else:
            source_b = rng.choice(
                len(self._probabilities), size=self._batch_size, p=self._probabilities
            )
            starts_b = self._source_start[source_b] + rng.integers(self._num_starts[source_b])
        return _inputs_and_targets(_crops(self._ids, starts_b, self._block_size))


class Epochs:
    """Within an epoch no token is read twice, and at most about two blocks of tokens are left out.

    An epoch cuts the text into consecutive blocks, from an offset of its own, and visits them in an
    order of its own. As many random crops would miss a third of the text and read another part
    twice or more. `micro_steps` micro-batches make an update.
    """

    def __init__(
        self, ids: Tokens, *, block_size: int, batch_size: int, seed: int, micro_steps: int = 1
    ) -> None:
        _check_length(WeightedSource("", len(ids), 1.0), block_size)
        self._ids, self._seed = ids, seed
        self._block_size, self._batch_size = block_size, batch_size
        self._micro_steps = micro_steps
        # One block is left out, which leaves room for the offset.
        self._num_blocks = max(1, (len(ids) - 1) // block_size - 1)
        self._num_offsets = min(block_size, len(ids) - self._num_blocks * block_size)
        self._epoch, self._epoch_starts = -1, np.empty(0, np.int64)

    def batch(self, step: int, micro_step: int = 0) -> tuple[Tensor, Tensor]:
        first = (step * self._micro_steps + micro_step) * self._batch_size
        epoch_b, block_b = np.divmod(np.arange(first, first + self._batch_size), self._num_blocks)
        starts_b = np.empty(self._batch_size, np.int64)
        for epoch in np.unique(epoch_b):
            in_epoch_b = epoch_b == epoch
            starts_b[in_epoch_b] = self._starts(int(epoch))[block_b[in_epoch_b]]
        return _inputs_and_targets(_crops(self._ids, starts_b, self._block_size))

    def _starts(self, epoch: int) -> NDArray[np.int64]:
        """Where each block of an epoch starts, in the order of reading."""
        if epoch != self._epoch:
            rng = _rng(self._seed, epoch, 0)
            offset = rng.integers(self._num_offsets)
            self._epoch_starts = offset + rng.permutation(self._num_blocks) * self._block_size
            self._epoch = epoch
        return self._epoch_starts


class BestFit:
    """Documents packed so that every sequence begins where a document begins.

    A random crop mostly begins inside a document, whose beginning the model then cannot know.
    Best-fit packing (Ding et al. 2024; nanochat's loader) samples documents that together are as
    long as the batch, puts the longest first, each into the sequence it fills best, and cuts a
    document only to fill the end of a sequence. Of a document longer than a sequence only the
    beginning is seen (`unseen`), so losses do not compare with those of crops.
    """

    def __init__(
        self,
        ids: Tokens,
        *,
        bos: int | None,
        block_size: int,
        batch_size: int,
        seed: int,
        sources: Sequence[WeightedSource] = (),
    ) -> None:
        if bos is None:
            raise DataError(
                "train.packing = best_fit needs several documents, and the corpus is a single one; "
                "set train.packing=stream"
            )
        self.sources = sources
        self._ids, self._seed = ids, seed
        self._length, self._batch_size = block_size + 1, batch_size  # inputs and the last target
        self._starts_n = document_starts(ids, bos)
        # The last id of the split ends its last document.
        self._lengths_n = np.diff(self._starts_n, append=len(ids) - 1)
        if int(np.minimum(self._lengths_n, self._length).sum()) < self._length:
            raise DataError(
                f"the documents of the training split do not fill a sequence of {self._length} "
                "tokens; use more text or a smaller model.block_size"
            )
        # The documents of source i are those from _bounds[i] up to _bounds[i + 1].
        ends = np.cumsum([0, *(source.tokens for source in sources)])
        bounds = np.searchsorted(self._starts_n, ends)
        self._bounds = bounds if sources else np.array([0, len(self._starts_n)])
        # Weights are fractions of the tokens, and what is sampled is a document.
        weights = [
            source.weight / self._lengths_n[first:last].mean()
            for source, first, last in zip(sources, self._bounds, self._bounds[1:], strict=False)
        ] or [1.0]
        self._probabilities = np.array(weights) / sum(weights)

    @property
    def unseen(self) -> float:
        """The fraction of the split's tokens beyond a sequence's length in their document."""
        beyond = np.maximum(self._lengths_n - self._length, 0).sum()
        return float(beyond / self._lengths_n.sum())

    def batch(self, step: int, micro_step: int = 0) -> tuple[Tensor, Tensor]:
        rng = _rng(self._seed, step, micro_step)
        sequences = [
            np.concatenate([self._ids[start : start + length] for start, length in documents])
            for documents in self._pack(rng)
        ]
        return _inputs_and_targets(np.stack(sequences))

    def _pack(self, rng: np.random.Generator) -> list[list[tuple[int, int]]]:
        """The documents of each sequence, as (start, length)."""
        sequences: list[list[tuple[int, int]]] = [[] for _ in range(self._batch_size)]
        free = [self._length] * self._batch_size
        left_over: list[tuple[int, int]] = []
        for start, length in sorted(self._sample(rng), key=lambda document: -document[1]):
            fitting = [index for index in range(self._batch_size) if free[index] >= length]
            if not fitting:
                left_over.append((start, length))
                continue
            best = min(fitting, key=lambda index: free[index])
            sequences[best].append((start, length))
            free[best] -= length
        for index, sequence in enumerate(sequences):
            while free[index]:
                start, length = left_over.pop(0) if left_over else self._sample_document(rng)
                sequence.append((start, min(length, free[index])))
                free[index] -= sequence[-1][1]
        return sequences

    def _sample(self, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Random documents that together are at least as long as the batch."""
        documents: list[tuple[int, int]] = []
        missing = self._length * self._batch_size
        while missing > 0:
            documents.append(self._sample_document(rng))
            missing -= documents[-1][1]
        return documents

    def _sample_document(self, rng: np.random.Generator) -> tuple[int, int]:
        """(start, length) of a random document, at most as long as a sequence."""
        source = 0
        if len(self._probabilities) > 1:
            source = int(rng.choice(len(self._probabilities), p=self._probabilities))
        index = int(rng.integers(self._bounds[source], self._bounds[source + 1]))
        return int(self._starts_n[index]), int(min(self._lengths_n[index], self._length))


def document_starts(ids: Tokens, bos: int) -> NDArray[np.int64]:
    """The offsets (n,) of `bos`, where documents begin; the last id ends the last document."""
    offsets = [
        np.flatnonzero(ids[start : start + SCANNED_AT_ONCE] == bos) + start
        for start in range(0, len(ids), SCANNED_AT_ONCE)
    ]
    return np.concatenate(offsets)[:-1]


def val_batches(
    ids: Tokens, *, block_size: int, tokens: int, batch_size: int
) -> list[tuple[Tensor, Tensor]]:
    """Inputs and targets (b, t): about `tokens` tokens in blocks at equal distances.

    Always the same ones, so that two evaluations differ by the model alone. A split shorter than a
    block gives one short block. Raises DataError where there is nothing to predict.
    """
    if len(ids) < 2:
        raise DataError(
            f"the validation split has {len(ids)} tokens, too few to predict one; "
            "use more text or a larger data.val_fraction"
        )
    block_size = min(block_size, len(ids) - 1)
    num_blocks = (len(ids) - 1) // block_size
    count = min(num_blocks, max(1, tokens // block_size))
    starts_n = np.arange(count) * num_blocks // count * block_size
    tensors = _inputs_and_targets(_crops(ids, starts_n, block_size))
    inputs, targets = (torch.split(tensor, batch_size) for tensor in tensors)
    return list(zip(inputs, targets, strict=True))


def _check_length(source: WeightedSource, block_size: int) -> None:
    """Raises DataError where a source of the training split is shorter than a block."""
    if source.tokens < block_size + 1:
        name = f" of {source.corpus}" if source.corpus else ""
        raise DataError(
            f"the training split{name} has {source.tokens} tokens, and a block of "
            f"{block_size} needs {block_size + 1}; use more text or a smaller "
            "model.block_size"
        )


def _rng(seed: int, step: int, micro_step: int) -> np.random.Generator:
    # Philox is counter-based: a stream for each (seed, step, micro_step), which costs no skipping.
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, micro_step, step]))


def _crops(ids: Tokens, starts_b: NDArray[np.int64], block_size: int) -> Ids:
    return ids[starts_b[:, None] + np.arange(block_size + 1)]


def _inputs_and_targets(sequences: Ids) -> tuple[Tensor, Tensor]:
    """Inputs (b, t) and, one position later, targets (b, t) of sequences (b, t + 1)."""
    ids = torch.from_numpy(sequences.astype(np.int64))
    return ids[:, :-1], ids[:, 1:]
