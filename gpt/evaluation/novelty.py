"""What of a text is new: how much of it stands, word for word or in pieces, in another text.

Two units. Characters, for runs and n-grams, so that numbers compare between tokenizers; and words
(runs of letters and digits, in small letters), for overlaps as other papers state them.

Pieces are compared by 64-bit hashes of all positions at once: the polynomial sum of x_i * B^i,
modulo 2^64, whose differences are the sums of pieces. Two different pieces among a million have the
same one with a probability of about 10^-13.
"""

import itertools
import re
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from gpt.corpus.contamination import HASH_BASE, HASH_BASE_INVERSE, Hashes, powers

_GAP = 0x110000  # ends each text: one above all characters


class Pieces:
    """The characters of some texts, of which the pieces of any length can be hashed."""

    def __init__(self, texts: list[str]) -> None:
        gap = np.array([_GAP], dtype=np.uint32)
        parts = [np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32) for text in texts]
        numbers = np.concatenate([part for text in parts for part in (text, gap)])
        self.characters = numbers
        self._lengths = np.array([len(part) for part in parts])
        self._powers = powers(HASH_BASE_INVERSE, len(numbers))
        terms = (numbers.astype(np.uint64) + np.uint64(1)) * powers(HASH_BASE, len(numbers))
        self._sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])

    def count(self, length: int) -> int:
        """How many pieces of `length` lie within one text."""
        return int(np.maximum(0, self._lengths - length + 1).sum())

    def hashes(self, length: int) -> Hashes:
        """One for each start of a piece of `length`, pieces across texts among them."""
        starts = max(0, len(self.characters) - length + 1)
        ends = self._sums[len(self._sums) - starts :]
        found: Hashes = (ends - self._sums[:starts]) * self._powers[:starts]
        return found


def _stands_in(texts: Pieces, train: Pieces, length: int) -> NDArray[np.bool_]:
    """For each piece of `length` of the texts whether it stands in `train` too."""
    mine, theirs = texts.hashes(length), train.hashes(length)
    if not len(mine):
        return np.zeros(0, np.bool_)
    # Only the few are sorted, and the many looked up.
    sorted_mine = np.sort(mine)
    at = np.minimum(np.searchsorted(sorted_mine, theirs), len(mine) - 1)
    found = np.isin(mine, theirs[sorted_mine[at] == theirs])
    for gap in np.flatnonzero(texts.characters == _GAP):
        found[max(0, gap - length + 1) : gap + 1] = False
    return found


def longest_shared_run(texts: Pieces, train: Pieces) -> str:
    """The longest run of characters of the texts that stands in `train` word for word."""
    # Where a run is shared, every shorter one within it is: so the length can be bisected.
    low, high = 0, len(texts.characters)
    while low < high:
        middle = (low + high + 1) // 2
        if _stands_in(texts, train, middle).any():
            low = middle
        else:
            high = middle - 1
    start = int(np.argmax(_stands_in(texts, train, low))) if low else 0
    return texts.characters[start : start + low].astype("<u4").tobytes().decode("utf-32-le")


def new_ngrams(texts: Pieces, train: Pieces, length: int) -> float | None:
    """The share of the texts' n-grams of `length` characters that do not stand in `train`."""
    total = texts.count(length)
    return 1 - int(_stands_in(texts, train, length).sum()) / total if total else None


# --- words ----------------------------------------------------------------------------------------


def words_of(text: str) -> list[str]:
    """The words of `text` in small letters, without punctuation."""
    return re.findall(r"[^\W_]+", text.lower())


def _ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def distinct(texts: list[list[str]], n: int) -> float | None:
    """Different n-grams of words over all n-grams (Li et al. 2016), over all texts together."""
    every = [gram for words in texts for gram in _ngrams(words, n)]
    return len(set(every)) / len(every) if every else None


def rouge_2(words: list[str], other: list[str]) -> float:
    """Rouge-2 (Lin 2004), F1: pairs of words in common, 0 for none, 1 for the same text."""
    mine, theirs = Counter(_ngrams(words, 2)), Counter(_ngrams(other, 2))
    total = mine.total() + theirs.total()
    return 2 * (mine & theirs).total() / total if total else 0.0


def rouge_2_among(texts: list[list[str]]) -> float | None:
    """The mean of `rouge_2` over all pairs of texts; None where there is one text."""
    pairs = [rouge_2(a, b) for i, a in enumerate(texts) for b in texts[:i]]
    return sum(pairs) / len(pairs) if pairs else None


def rouge_2_nearest(words: list[str], train: list[str]) -> float:
    """`rouge_2` of a text and the passage of `train`, as long as it, that holds most of its pairs.

    A pair counts as often as the passage has it in the search, and as often as both in the score.
    """
    mine = set(_ngrams(words, 2))
    if not mine:
        return 0.0
    hits = np.fromiter((pair in mine for pair in itertools.pairwise(train)), np.int64)
    sums = np.concatenate([[0], np.cumsum(hits)])
    pairs = min(len(words) - 1, len(hits))
    start = int(np.argmax(sums[pairs:] - sums[: len(sums) - pairs]))
    return rouge_2(words, train[start : start + pairs + 1])
