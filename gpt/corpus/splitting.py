"""Splitting: sources become a corpus of training, validation and test documents.

If documents are left out, cut or counted, planning reads the source once; the plan keeps 16 bytes
of each document, and nothing else here grows with the text.
"""

import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt.corpus.manifest import SPLITS
from gpt.corpus.readers import Document
from gpt.corpus.sources import Source, with_prefix
from gpt.corpus.writer import CorpusWriter
from gpt.errors import DataError

LEFT_OUT = -1  # in place of the length of a document
RECENT_DIGESTS = 2**19  # kept in a Python set before they are merged into the sorted array


@dataclass(frozen=True)
class Filters:
    """Which of a source's documents are used.

    `drop_duplicates` keeps the first of documents with the same text. `max_bytes` ends the corpus
    early, within a document if need be; 0 is no limit.
    """

    drop_duplicates: bool = False
    max_bytes: int = 0


@dataclass
class Split:
    """How a source is split: planned by `plan_split`, and counted while it is written.

    `lengths` has the characters used of each document, or LEFT_OUT, up to the one that max_bytes
    ends in; None: all documents, all of their text. `splits` has an index into SPLITS for each used
    document, or is None for a contiguous split. `left_out` counts documents by reason, empty or
    duplicate. `capped`: there is more text than max_bytes; it is not read, and so not counted.
    """

    lengths: "array[int] | None"
    splits: NDArray[np.uint8] | None
    left_out: Counter[str]
    capped: bool
    keeps_information: bool  # not with max_bytes, since a text that is cut is another text
    documents: int = 0  # used
    has_text: bool = False

    @property
    def split_by(self) -> str:
        return "contiguous" if self.splits is None else "document"


def write_corpus(
    folder: Path,
    sources: dict[str, Source],
    *,
    weights: Sequence[float] = (),
    **options: Any,
) -> dict[str, Any]:
    """Writes the sources, by name, as one corpus, and returns its manifest.

    Several sources go into shards of their own. `weights` are what training is to sample them with
    (none: their sizes). `options` and errors are those of `split_corpus`.
    """
    results: list[Split] = []
    mixed = len(sources) > 1
    with CorpusWriter(folder) as writer:
        for name, source in sources.items():
            if mixed:
                writer.corpus = name
                source = with_prefix(name, source)
            results.append(split_corpus(source, writer, **options))
        metadata: dict[str, Any] = {
            "corpus": "+".join(sources),
            "documents": sum(split.documents for split in results),
            "split_by": " and ".join(dict.fromkeys(split.split_by for split in results)),
        }
        by_source = {name: source.metadata for name, source in sources.items()}
        metadata |= {"sources": by_source} if mixed else {"source": by_source[metadata["corpus"]]}
        if mixed and weights:
            metadata["weights"] = dict(zip(sources, weights, strict=True))
        if left_out := sum((split.left_out for split in results), Counter[str]()):
            metadata["left_out"] = left_out
        if any(split.capped for split in results):
            metadata["capped"] = True
        return writer.finish(metadata)


def split_corpus(
    source: Source,
    writer: CorpusWriter,
    *,
    seed: int,
    val_fraction: float,
    test_fraction: float,
    filters: Filters | None = None,
    progress: Callable[[int], object] = lambda written: None,
) -> Split:
    """Writes `source` as train, val and test; returns how it was split.

    Holds out whole documents, sampled with `seed`, if there are enough for each split to get one;
    otherwise the end of every document, val before test, cut at the character that nanoGPT cuts a
    single text at. `progress` gets the bytes just written. Raises DataError for a source that is
    empty or only white space.
    """
    split = plan_split(source, filters or Filters(), seed, val_fraction, test_fraction)
    documents = _used_documents(source, split, progress)
    if split.splits is not None:
        write_by_document(documents, split.splits, writer)
    else:
        assert split.lengths is not None
        used = [length for length in split.lengths if length != LEFT_OUT]
        write_contiguous(documents, used, val_fraction, test_fraction, writer)
    if not split.has_text:
        raise DataError("the corpus is empty or only white space; check data.path")
    return split


def plan_split(
    source: Source, filters: Filters, seed: int, val_fraction: float, test_fraction: float
) -> Split:
    """Decides which documents are used and held out; reads the source only if it has to."""
    held_out = [fraction for fraction in (val_fraction, test_fraction) if fraction > 0]

    def one_for_each_split(documents: int) -> bool:
        sizes = [documents * fraction for fraction in held_out]
        return all(size >= 1 for size in sizes) and sum(map(round, sizes)) < documents

    count, lengths, left_out, capped = source.count, None, Counter[str](), False
    if count is None or filters != Filters() or not one_for_each_split(count):
        lengths, left_out, capped = measure(source, filters)
        count = sum(length != LEFT_OUT for length in lengths)
    by_document = one_for_each_split(count)
    splits = assign(count, seed, val_fraction, test_fraction) if by_document else None
    return Split(lengths, splits, left_out, capped, not filters.max_bytes)


def measure(source: Source, filters: Filters) -> tuple["array[int]", Counter[str], bool]:
    """Reads `source`; returns the fields `lengths`, `left_out` and `capped` of its Split."""
    lengths = array("q")
    left_out: Counter[str] = Counter()
    capped = False
    seen = DigestSet()
    room = filters.max_bytes or math.inf
    for document in source.documents():
        if room <= 0:
            return lengths, left_out, True
        size, used_characters, digest = 0, 0, hashlib.blake2b(digest_size=8)
        for text in document.chunks():
            raw = text.encode()
            if size + len(raw) <= room:
                used_characters += len(text)
            elif size <= room:
                used_characters += len(raw[: int(room - size)].decode(errors="ignore"))
            size += len(raw)
            if filters.drop_duplicates:
                digest.update(raw)
        if not size or (filters.drop_duplicates and seen.add(digest.digest())):
            left_out["duplicate" if size else "empty"] += 1
            lengths.append(LEFT_OUT)
            continue
        lengths.append(used_characters)
        capped = size > room
        room -= size
    return lengths, left_out, capped


def assign(count: int, seed: int, val_fraction: float, test_fraction: float) -> NDArray[np.uint8]:
    """Assigns `count` documents to splits, (count,), as indices into SPLITS.

    A random sample of exact size, the same on every machine.
    """
    keys = np.fromiter(
        (
            int.from_bytes(hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=16).digest()[:8])
            for index in range(count)
        ),
        np.uint64,
        count,
    )
    ranked = np.argsort(keys, kind="stable")
    val, test = round(count * val_fraction), round(count * test_fraction)
    splits = np.zeros(count, np.uint8)
    splits[ranked[:val]] = SPLITS.index("val")
    splits[ranked[val : val + test]] = SPLITS.index("test")
    return splits


class DigestSet:
    """A set of 64-bit numbers at 8 bytes each, where Python's own would take about 80.

    Two documents among ten million are taken for one with a probability below 1 in 100,000.
    """

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.uint64)
        self._recent: set[int] = set()

    def add(self, digest: bytes) -> bool:
        """Adds eight bytes; returns whether they were in the set before."""
        number = int.from_bytes(digest, "little")
        if number in self._recent:
            return True
        index = int(np.searchsorted(self._sorted, np.uint64(number)))
        if index < len(self._sorted) and int(self._sorted[index]) == number:
            return True
        self._recent.add(number)
        if len(self._recent) >= RECENT_DIGESTS:
            recent = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._sorted = np.union1d(self._sorted, recent)
            self._recent.clear()
        return False


# --- writing --------------------------------------------------------------------------------------


def write_by_document(
    documents: Iterable[Document], splits: NDArray[np.uint8], writer: CorpusWriter
) -> None:
    """Writes each document to its split, with its information where that is known."""
    for document, index in zip(documents, splits, strict=True):
        for text in document.chunks():
            writer.write(SPLITS[index], document.name, text)
        if document.information_bits is not None:
            writer.add_information(SPLITS[index], document.information_bits)


def write_contiguous(
    documents: Iterable[Document],
    lengths: Iterable[int],
    val_fraction: float,
    test_fraction: float,
    writer: CorpusWriter,
) -> None:
    """Writes the beginning of each document to train, then val, and its end to test."""
    for document, length in zip(documents, lengths, strict=True):
        train_end = int(length * (1 - val_fraction - test_fraction))
        val_end = int(length * (1 - test_fraction)) if test_fraction else length
        ranges = ((0, train_end), (train_end, val_end), (val_end, length))
        position = 0
        for text in document.chunks():
            for split, (start, end) in zip(SPLITS, ranges, strict=True):
                writer.write(
                    split, document.name, text[max(0, start - position) : max(0, end - position)]
                )
            position += len(text)


def _used_documents(
    source: Source, split: Split, progress: Callable[[int], object]
) -> Iterator[Document]:
    """Yields the documents that are used, cut to their lengths, and counts them in `split`."""

    def chunks(document: Document, length: int | None) -> Iterator[str]:
        position = 0
        for chunk in document.chunks():
            text = chunk if length is None else chunk[: length - position]
            if not text:
                break
            yield text
            position += len(text)
            split.has_text = split.has_text or not text.isspace()
            progress(len(text.encode()))
        if position:
            split.documents += 1
        else:
            split.left_out["empty"] += 1

    lengths: Iterable[int | None] = repeat(None) if split.lengths is None else split.lengths
    # Lengths come first: they end before the documents if max_bytes cuts.
    for length, document in zip(lengths, source.documents(), strict=False):
        if length != LEFT_OUT:
            bits = document.information_bits if split.keeps_information else None
            yield Document(document.name, partial(chunks, document, length), bits)
