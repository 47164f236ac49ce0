"""A source becomes a corpus: filtered, split into training, validation and test, written.

Where documents are left out, cut or counted, the source is read once beforehand; that reading
keeps 16 bytes of each document. Nothing else here grows with the text.
"""

import hashlib
import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpt.corpus.manifest import SPLITS, CorpusWriter
from gpt.corpus.sources import Source
from gpt.errors import DataError


@dataclass(frozen=True)
class Filters:
    """What of a source is used. 0 is no limit; lengths are in characters.

    `max_bytes` ends the corpus early, within a document if need be; of documents that are the same
    to the character the first stays.
    """

    min_characters: int = 0
    max_characters: int = 0
    drop_duplicates: bool = False
    max_bytes: int = 0


@dataclass
class Split:
    """How a source was split ('document' or 'contiguous'), and how many documents were used.

    `left_out` counts the others by reason: empty, short, long, duplicate. What comes after the byte
    cap is not read, and so not counted: `capped` tells that there was a cut.
    """

    by: str
    documents: int
    left_out: dict[str, int]
    capped: bool


def split_corpus(
    source: Source,
    writer: CorpusWriter,
    *,
    seed: int,
    val_fraction: float,
    test_fraction: float,
    filters: Filters | None = None,
    progress: Callable[[int], None] = lambda written: None,
) -> Split:
    """Writes `source` as train, val and test; returns how it was split.

    'document': whole documents are held out, drawn by `seed`, where there are enough of them for
    each split to get one. 'contiguous': the end of every document is held out, val before test,
    cut at the same character as the peers do for a single text.
    `progress` is told the bytes just written. Raises DataError for a source that is empty or white
    space only, or of which the filters leave nothing.
    """
    filters = filters or Filters()
    fractions = [fraction for fraction in (val_fraction, test_fraction) if fraction > 0]

    def enough(documents: int) -> bool:
        held_out = sum(round(documents * fraction) for fraction in fractions)
        return held_out < documents and all(documents * fraction >= 1 for fraction in fractions)

    # Where a document is cut depends on its length, and which there are on the filters: then
    # everything is read once beforehand.
    survey: _Survey | None = None
    count = source.count
    if count is None or filters != Filters() or not enough(count):
        survey = _Survey(source, filters)
        count = survey.used
    by_document = enough(count)
    splits = assign(count if by_document else 0, seed, val_fraction, test_fraction)

    seen_text, used, empty = False, 0, 0
    for index, document in enumerate(source.documents()):
        length = survey.length(index) if survey else None
        if length == LEFT_OUT:
            continue
        if length == NOT_READ:
            break
        ends = [] if by_document else _ends(length or 0, val_fraction, test_fraction)
        split = SPLITS[splits[used]] if by_document else ""
        position = 0
        for part in document.parts():
            text = part if length is None else part[: length - position]
            if not text:
                break
            seen_text = seen_text or not text.isspace()
            if by_document:
                writer.write(split, document.name, text)
            for end_split, start, end in ends:
                piece = text[max(0, start - position) : max(0, end - position)]
                if piece:
                    writer.write(end_split, document.name, piece)
            position += len(text)
            progress(len(text.encode()))
        # After a byte cap the information is that of another text.
        if by_document and document.information_bits is not None and not filters.max_bytes:
            writer.add_information(split, document.information_bits)
        used += 1
        empty += position == 0
    left_out = dict(survey.left_out) if survey else {}
    if empty:
        left_out["empty"] = left_out.get("empty", 0) + empty
    if not seen_text and set(left_out) - {"empty"}:
        counted = ", ".join(f"{number:,} {reason}" for reason, number in sorted(left_out.items()))
        raise DataError(
            f"data.length_range leaves no text (documents left out: {counted}); widen it"
        )
    if not seen_text:
        raise DataError("the corpus is empty or only white space; check data.path")
    by = "document" if by_document else "contiguous"
    return Split(by, used - empty, left_out, capped=survey is not None and survey.capped)


# --- reading beforehand ---------------------------------------------------------------------------

# What a survey says in place of a length.
LEFT_OUT, NOT_READ = -1, -2
# Numbers kept in a Python set before they join the sorted ones.
AT_HAND = 2**19


class _Survey:
    """The length in characters of each document that is used, and why the others are not."""

    def __init__(self, source: Source, filters: Filters) -> None:
        self.used = 0
        self.left_out: dict[str, int] = {}
        self.capped = False
        self._lengths = array("q")
        seen = Seen()
        left = filters.max_bytes or math.inf
        for document in source.documents():
            if left <= 0:
                self.capped = True
                break
            length, size, cut, digest = 0, 0, 0, hashlib.blake2b(digest_size=8)
            for text in document.parts():
                raw = text.encode()
                if size <= left:
                    room = left - size
                    whole = len(raw) <= room
                    cut += len(text) if whole else len(raw[: int(room)].decode(errors="ignore"))
                length += len(text)
                size += len(raw)
                if filters.drop_duplicates:
                    digest.update(raw)
            reason = _reason(length, filters)
            if not reason and filters.drop_duplicates and seen.add(digest.digest()):
                reason = "duplicate"
            if reason:
                self.left_out[reason] = self.left_out.get(reason, 0) + 1
                self._lengths.append(LEFT_OUT)
                continue
            self._lengths.append(cut)
            self.used += 1
            self.capped = size > left
            left -= size

    def length(self, index: int) -> int:
        """In characters, LEFT_OUT, or NOT_READ after the byte cap."""
        return self._lengths[index] if index < len(self._lengths) else NOT_READ


def _reason(length: int, filters: Filters) -> str:
    """Why a document of `length` characters is left out, or nothing."""
    if not length:
        return "empty"
    if length < filters.min_characters:
        return "short"
    return "long" if length > filters.max_characters > 0 else ""


class Seen:
    """A set of 64-bit numbers at 8 bytes each, where Python's own would take about 80.

    Two documents among ten million are taken for the same with a probability below 1 in 100,000.
    """

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.uint64)
        self._recent: set[int] = set()

    def add(self, digest: bytes) -> bool:
        """Adds eight bytes; whether they were there before."""
        number = int.from_bytes(digest, "little")
        if number in self._recent:
            return True
        at = int(np.searchsorted(self._sorted, np.uint64(number)))
        if at < len(self._sorted) and int(self._sorted[at]) == number:
            return True
        self._recent.add(number)
        if len(self._recent) >= AT_HAND:
            recent = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._sorted = np.union1d(self._sorted, recent)
            self._recent.clear()
        return False


# --- which split ----------------------------------------------------------------------------------


def assign(count: int, seed: int, val_fraction: float, test_fraction: float) -> NDArray[np.uint8]:
    """The split of each of `count` documents, as an index into SPLITS.

    A random draw of exact size, the same everywhere.
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


def _ends(length: int, val_fraction: float, test_fraction: float) -> list[tuple[str, int, int]]:
    train_end = int(length * (1 - val_fraction - test_fraction))
    val_end = int(length * (1 - test_fraction)) if test_fraction else length
    return [("train", 0, train_end), ("val", train_end, val_end), ("test", val_end, length)]
