"""Token files, and the batches and windows cut from them.

A batch is a pure function of (seed, step): there is no loader state to save, nothing that an
evaluation in between could disturb, and a resumed training sees what it would have seen.

Shapes: b sequences in a batch, t positions in a block.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpt.corpus import check_sha256, damaged, read_json, split_facts
from gpt.errors import DataError
from gpt.tokenizer import Ids


def open_tokens(folder: Path, split: str, vocab_size: int) -> Ids:
    """The ids of a split, memory-mapped, shape (n,); verified against the manifest tokens.json.

    Raises DataError for a file that is damaged or holds ids outside the vocabulary.
    """
    path = folder / f"{split}.npy"
    facts = split_facts(folder / "tokens.json", split)
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


class Batches:
    """Random crops of a token file: `batch(step)` gives inputs and targets of shape (b, t)."""

    def __init__(self, ids: Ids, *, block_size: int, batch_size: int, seed: int) -> None:
        if len(ids) < block_size + 1:
            raise DataError(
                f"the training split has {len(ids)} tokens, and a block of {block_size} needs "
                f"{block_size + 1}; use more text or a smaller model.block_size"
            )
        self._ids = ids
        self._seed = seed
        self._batch_size = batch_size
        self._crop = np.arange(block_size + 1)
        self._starts = len(ids) - block_size

    def batch(self, step: int, part: int = 0) -> tuple[Tensor, Tensor]:
        """Inputs and targets (b, t), int64, of `step`; `part` counts accumulated passes."""
        # Philox is counter-based: a stream for each (seed, step, part), at no cost to skip there.
        draw = np.random.Generator(np.random.Philox(key=self._seed, counter=[0, 0, part, step]))
        starts = draw.integers(self._starts, size=self._batch_size)
        crops = self._ids[starts[:, None] + self._crop].astype(np.int64)
        crops_bt = torch.from_numpy(crops)
        return crops_bt[:, :-1], crops_bt[:, 1:]


def even_windows(
    ids: Ids, *, block_size: int, tokens: int, batch_size: int
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
