"""How much of a generated text is copied from the training text, and how much texts have in common.

    novelty_metrics     all of it for some samples, as metrics/sample.json holds it
    longest_shared_run, new_ngrams   in characters, so that tokenizers can be compared
    distinct, rouge_2   in words (runs of letters and digits, in lower case), as papers state them

Character n-grams are compared by 64-bit hashes of all positions at once: the polynomial sum of
x_i * B^i modulo 2^64, so that the hash of an n-gram is a difference of two sums. Two different
n-grams among a million collide with a probability of about 1e-13.
"""

import itertools
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt.files import rounded

# The last tokens of the training split that copies are searched in.
MAX_SEARCHED_TOKENS = 2_000_000
NGRAM_LENGTHS = range(4, 17)  # characters

_BASE = 0x9E3779B97F4A7C15 | 1  # odd, so that it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 2**64)
_SEPARATOR = 0x110000  # ends each text: one above all characters

Hashes = NDArray[np.uint64]
Pair = tuple[str, str]


def novelty_metrics(texts: list[str], train_text: str, val_text: str) -> dict[str, Any]:
    """What `texts` share with `train_text`, and with each other.

    `validation` holds the same figures for `val_text`, which should be as long as the texts: what
    an author of the same kind, who copies nothing, shares with the training text.
    """
    train, train_words = NgramIndex([train_text]), words_of(train_text)
    words = [words_of(text) for text in texts]
    positions = pair_positions(train_words)
    nearest = [rouge_2_nearest(text_words, train_words, positions) for text_words in words]
    metrics = {
        **_shared(NgramIndex(texts), train),
        "validation": _shared(NgramIndex([val_text]), train),
        **{f"distinct_{n}": distinct(words, n) for n in (1, 2, 3)},
        "rouge_2_among": rouge_2_among(words),
        "rouge_2_train": sum(nearest) / len(nearest),
    }
    return rounded(metrics)  # type: ignore[no-any-return]


def _shared(texts: "NgramIndex", train: "NgramIndex") -> dict[str, Any]:
    new = {f"{length:02}": new_ngrams(texts, train, length) for length in NGRAM_LENGTHS}
    return {"longest_shared_run": len(longest_shared_run(texts, train)), "new_ngrams": new}


# --- characters -----------------------------------------------------------------------------------


class NgramIndex:
    """The characters of some texts, whose n-grams of any length can be hashed."""

    def __init__(self, texts: list[str]) -> None:
        separator = np.array([_SEPARATOR], dtype=np.uint32)
        arrays = [np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32) for text in texts]
        self.characters = np.concatenate([x for array in arrays for x in (array, separator)])
        self._lengths = np.array([len(array) for array in arrays])
        self._powers = _powers(_INVERSE, len(self.characters))
        terms = self.characters.astype(np.uint64) + np.uint64(1)
        terms *= _powers(_BASE, len(terms))
        self._sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])

    def count(self, length: int) -> int:
        """Number of n-grams of `length` characters within one text."""
        return int(np.maximum(0, self._lengths - length + 1).sum())

    def hashes(self, length: int) -> Hashes:
        """One per start of an n-gram of `length` characters, those across texts included."""
        starts = max(0, len(self.characters) - length + 1)
        ends = self._sums[len(self._sums) - starts :]
        hashes: Hashes = (ends - self._sums[:starts]) * self._powers[:starts]
        return hashes


def _powers(base: int, count: int) -> Hashes:
    """base^0, base^1, ..., modulo 2^64."""
    factors = np.full(count, base, dtype=np.uint64)
    factors[0] = 1
    powers: Hashes = np.cumprod(factors, dtype=np.uint64)
    return powers


def _occurs_in(texts: NgramIndex, train: NgramIndex, length: int) -> NDArray[np.bool_]:
    """For each n-gram of `length` characters of the texts whether `train` has it too."""
    hashes, train_hashes = texts.hashes(length), train.hashes(length)
    if not len(hashes):
        return np.zeros(0, np.bool_)
    # Few n-grams of `train` have the first 20 bits of one of the texts: the others are left out.
    shift = np.uint64(64 - 20)
    prefixes = np.zeros(2**20, np.bool_)
    prefixes[hashes >> shift] = True
    occurs = np.isin(hashes, train_hashes[prefixes[train_hashes >> shift]])
    for separator in np.flatnonzero(texts.characters == _SEPARATOR):
        occurs[max(0, separator - length + 1) : separator + 1] = False
    return occurs


def longest_shared_run(texts: NgramIndex, train: NgramIndex) -> str:
    """The longest run of characters of the texts that occurs in `train`."""
    # Where a run is shared, every shorter one within it is: so the length can be bisected.
    low, high = 0, len(texts.characters)
    while low < high:
        middle = (low + high + 1) // 2
        if _occurs_in(texts, train, middle).any():
            low = middle
        else:
            high = middle - 1
    start = int(np.argmax(_occurs_in(texts, train, low))) if low else 0
    return texts.characters[start : start + low].astype("<u4").tobytes().decode("utf-32-le")


def new_ngrams(texts: NgramIndex, train: NgramIndex, length: int) -> float | None:
    """Fraction of the texts' n-grams of `length` characters that do not occur in `train`."""
    total = texts.count(length)
    return 1 - int(_occurs_in(texts, train, length).sum()) / total if total else None


# --- words ----------------------------------------------------------------------------------------


def words_of(text: str) -> list[str]:
    """The words of `text` in lower case, without punctuation."""
    return re.findall(r"[^\W_]+", text.lower())


def _ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def distinct(texts: list[list[str]], n: int) -> float | None:
    """Number of different n-grams of words over that of all (Li et al. 2016), in all texts."""
    ngrams = [ngram for words in texts for ngram in _ngrams(words, n)]
    return len(set(ngrams)) / len(ngrams) if ngrams else None


def rouge_2(words: list[str], reference: list[str]) -> float:
    """Rouge-2 (Lin 2004), F1: pairs of words in common, 0 for none, 1 for the same text."""
    pairs, expected = Counter(_ngrams(words, 2)), Counter(_ngrams(reference, 2))
    total = pairs.total() + expected.total()
    return 2 * (pairs & expected).total() / total if total else 0.0


def rouge_2_among(texts: list[list[str]]) -> float | None:
    """The mean of `rouge_2` over all pairs of texts; None where there is one text."""
    pairs = [rouge_2(a, b) for i, a in enumerate(texts) for b in texts[:i]]
    return sum(pairs) / len(pairs) if pairs else None


def pair_positions(words: list[str]) -> dict[Pair, list[int]]:
    """Where each pair of neighbouring words stands, by the index of its first word."""
    positions: dict[Pair, list[int]] = {}
    for index, pair in enumerate(itertools.pairwise(words)):
        positions.setdefault(pair, []).append(index)
    return positions


def rouge_2_nearest(
    words: list[str], train: list[str], positions: Mapping[Pair, list[int]]
) -> float:
    """`rouge_2` of a text and the passage of `train`, as long as it, with most of its pairs.

    `positions` are the `pair_positions` of `train`. The search counts a pair each time the passage
    has it, the score as often as both have it.
    """
    pairs_of_text = set(itertools.pairwise(words))
    if not pairs_of_text:
        return 0.0
    hits = np.zeros(max(0, len(train) - 1), np.int64)
    for pair in pairs_of_text:
        hits[positions.get(pair, [])] = 1
    sums = np.concatenate([[0], np.cumsum(hits)])
    pairs = min(len(words) - 1, len(hits))
    start = int(np.argmax(sums[pairs:] - sums[: len(sums) - pairs]))
    return rouge_2(words, train[start : start + pairs + 1])
