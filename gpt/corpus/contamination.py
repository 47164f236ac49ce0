"""How much of a held-out split also stands in training: 8-grams of words, as GPT-2's paper counts.

Lower-cased words of letters and digits (Radford et al. 2019, section 4); an 8-gram does not reach
from one document into the next. The paper keeps the training 8-grams in a Bloom filter. Here the
held-out ones are kept, as 64-bit hashes; where they are more than MOST, an even sample of them, the
same one on every machine. So memory is bounded, and the training split is read once.
"""

import re
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt.corpus.manifest import read_parts
from gpt.corpus.parallel import ordered_map

GRAM = 8
# Held-out 8-grams kept: enough for the share to a tenth of a percent.
MOST = 2**18
BATCH = 2**20  # characters hashed at once
Hashes = NDArray[np.uint64]
Texts = list[tuple[str, str]]

_NO_WORD = re.compile(r"[\W_]+")
# Odd, so that products modulo 2^64 lose nothing, and can be undone.
HASH_BASE = 0x9E3779B97F4A7C15
HASH_BASE_INVERSE = pow(HASH_BASE, -1, 2**64)
# Of bytes that are no part of a word 0; those above ASCII are, once _NO_WORD has gone.
_CODES = np.array(
    [(byte + 1) * (byte > 127 or chr(byte).isalnum()) for byte in range(256)], np.uint64
)


def shared_ngrams(corpus: Path, split: str, processes: int = 1) -> float | None:
    """The share of the different 8-grams of `split` that stand in train; None where it has none."""
    held_out, bits = np.empty(0, np.uint64), 0
    whole = partial(_sampled_ngrams, 0)
    for hashes in ordered_map(whole, _batches(read_parts(corpus, split)), processes):
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
    """A 64-bit hash of each 8-gram of words in (document, part) pairs, in their order."""
    documents = []
    for _, parts in groupby(texts, key=itemgetter(0)):
        text = "".join(part for _, part in parts).lower()
        documents.append((text if text.isascii() else _NO_WORD.sub(" ", text)).encode())
    raw = np.frombuffer(b"\n".join(documents), np.uint8)
    # A word's hash is its bytes as the digits of a number, modulo 2^64. Places are counted from the
    # beginning of all; what stands before a word is divided out again.
    codes = _CODES[raw]
    starts = np.flatnonzero((codes[1:] != 0) & (codes[:-1] == 0)) + 1
    if len(codes) and codes[0]:
        starts = np.insert(starts, 0, 0)
    if len(starts) < GRAM:
        return np.empty(0, np.uint64)
    words = np.add.reduceat(codes * powers(HASH_BASE, len(raw)), starts)
    words *= powers(HASH_BASE_INVERSE, len(raw))[starts]
    words = _mixed(words)

    count = len(words) - GRAM + 1
    hashes = np.zeros(count, np.uint64)
    for place, factor in enumerate(powers(HASH_BASE, GRAM)):
        hashes += words[place : place + count] * factor
    ends = np.cumsum([len(document) + 1 for document in documents])
    document = np.searchsorted(ends, starts, side="right")
    within: Hashes = _mixed(hashes)[document[:count] == document[GRAM - 1 :]]
    return within


def powers(base: int, count: int) -> Hashes:
    """base, base^2, ... modulo 2^64."""
    return np.cumprod(np.full(count, base, np.uint64), dtype=np.uint64)


def _mixed(hashes: Hashes) -> Hashes:
    """Each bit depends on all: the low ones decide what is sampled."""
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(HASH_BASE)
    hashes ^= hashes >> np.uint64(29)
    return hashes


def _sampled_ngrams(bits: int, texts: Texts) -> Hashes:
    return _sample(ngrams(texts), bits)


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
