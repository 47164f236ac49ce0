"""How much of a held-out split also stands in training: 8-grams of words, as GPT-2's paper counts.

Lower-cased words of letters and digits (Radford et al. 2019, section 4); an 8-gram does not reach
from one document into the next. The paper keeps the training 8-grams in a Bloom filter. Here the
held-out ones are kept, as 64-bit hashes; where they are more than MOST, an even sample of them, the
same one on every machine. So memory is bounded, and the training split is read once.
"""

import re
import zlib
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt.corpus import read_parts
from gpt.parallel import ordered_map

GRAM = 8
MOST = 2**22  # held-out 8-grams kept, 8 bytes each
BATCH = 2**20  # characters hashed at once
Hashes = NDArray[np.uint64]
Texts = list[tuple[str, str]]

_WORD = re.compile(r"[^\W_]+")
# Odd numbers, so that no bit of a word is lost: powers of the golden ratio's, modulo 2^64.
_FACTORS = np.array(
    [pow(0x9E3779B97F4A7C15, power, 2**64) for power in range(1, GRAM + 1)], np.uint64
)


def shared_ngrams(corpus: Path, split: str, processes: int = 1) -> float | None:
    """The share of the different 8-grams of `split` that stand in train; None where it has none."""
    held_out, bits = np.empty(0, np.uint64), 0
    for hashes in ordered_map(ngrams, _batches(read_parts(corpus, split)), processes):
        held_out = np.union1d(held_out, _sample(hashes, bits))
        while len(held_out) > MOST:
            bits += 1
            held_out = _sample(held_out, bits)
    if not len(held_out):
        return None
    found = np.zeros(len(held_out), bool)
    sampled = partial(_sampled_ngrams, bits)
    for hashes in ordered_map(sampled, _batches(read_parts(corpus, "train")), processes):
        places = np.searchsorted(held_out, hashes)
        places[places == len(held_out)] = 0
        found[places[held_out[places] == hashes]] = True
    return float(found.mean())


def ngrams(texts: Texts) -> Hashes:
    """A 64-bit hash of each different 8-gram of words in (document, part) pairs, sorted."""
    found = [np.empty(0, np.uint64)]
    for _, parts in groupby(texts, key=itemgetter(0)):
        text = "".join(part for _, part in parts)
        words = [zlib.crc32(word.encode()) for word in _WORD.findall(text.lower())]
        found.append(_windows(np.array(words, np.uint64)))
    return np.unique(np.concatenate(found))


def _sampled_ngrams(bits: int, texts: Texts) -> Hashes:
    return _sample(ngrams(texts), bits)


def _windows(words: NDArray[np.uint64]) -> Hashes:
    count = len(words) - GRAM + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    hashes = np.zeros(count, np.uint64)
    for place, factor in enumerate(_FACTORS):
        hashes += words[place : place + count] * factor
    # The low bits decide what is sampled, so each must depend on all of the words.
    hashes ^= hashes >> np.uint64(32)
    hashes *= _FACTORS[0]
    hashes ^= hashes >> np.uint64(29)
    return hashes


def _sample(hashes: Hashes, bits: int) -> Hashes:
    """One in 2^bits."""
    sampled: Hashes = hashes[hashes & np.uint64(2**bits - 1) == 0]
    return sampled


def _batches(parts: Iterator[tuple[str, str]]) -> Iterator[Texts]:
    """Parts in lists of at least BATCH characters.

    Where an edge falls into a document, the next list begins with the last 200 characters again, so
    that the 8-grams across it are there. Each edge makes up a few of a word that it cuts.
    """
    batch: Texts = []
    size = 0
    for doc, text in parts:
        if size >= BATCH:
            yield batch
            last_doc, last = batch[-1]
            batch, size = [(doc, last[-200:])] if last_doc == doc else [], 0
        batch.append((doc, text))
        size += len(text)
    if batch:
        yield batch
