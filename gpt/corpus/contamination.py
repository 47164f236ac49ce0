"""How much of a held-out split is also in training: 8-grams of words, as GPT-2's paper counts them.

Lower-case words of letters and digits (Radford et al. 2019, section 4); an 8-gram does not cross
documents. The paper keeps the training 8-grams in a Bloom filter. Here the held-out ones are kept,
as 64-bit hashes; of more than MAX_HELD_OUT an even sample, the same on every machine. So memory is
bounded, and the training split is read once.
"""

import re
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt.corpus.manifest import read_chunks
from gpt.corpus.parallel import ordered_map

NGRAM = 8
MAX_HELD_OUT = 2**18  # 8-grams: enough for the fraction to a tenth of a percent
BATCH_CHARACTERS = 2**20
Hashes = NDArray[np.uint64]
Texts = list[tuple[str, str]]  # (document, chunk)

_NOT_A_WORD = re.compile(r"[\W_]+")
# Odd, so that products modulo 2^64 lose nothing, and can be undone.
HASH_BASE = 0x9E3779B97F4A7C15
HASH_BASE_INVERSE = pow(HASH_BASE, -1, 2**64)
# 0 for bytes outside words. Those above ASCII are inside, once _NOT_A_WORD is gone.
_CODES = np.array(
    [(byte + 1) * (byte > 127 or chr(byte).isalnum()) for byte in range(256)], np.uint64
)


def shared_ngrams(corpus: Path, split: str, processes: int = 1) -> float | None:
    """Returns the fraction of the distinct 8-grams of `split` that are in train; None: none."""
    held_out, bits = np.empty(0, np.uint64), 0
    for hashes in ordered_map(ngrams, _batches(read_chunks(corpus, split)), processes):
        held_out = np.union1d(held_out, _sample(hashes, bits))
        while len(held_out) > MAX_HELD_OUT:
            bits += 1
            held_out = _sample(held_out, bits)
    if not len(held_out):
        return None
    in_train = np.zeros(len(held_out), bool)
    hash_sampled = partial(_sampled_ngrams, bits)
    for hashes in ordered_map(hash_sampled, _batches(read_chunks(corpus, "train")), processes):
        indices = np.searchsorted(held_out, hashes)
        indices[indices == len(held_out)] = 0
        in_train[indices[held_out[indices] == hashes]] = True
    return float(in_train.mean())


def ngrams(texts: Texts) -> Hashes:
    """Returns a 64-bit hash of each 8-gram of words in (document, chunk) pairs, in their order."""
    documents = []
    for _, chunks in groupby(texts, key=itemgetter(0)):
        text = "".join(chunk for _, chunk in chunks).lower()
        documents.append((text if text.isascii() else _NOT_A_WORD.sub(" ", text)).encode())
    raw = np.frombuffer(b"\n".join(documents), np.uint8)
    # A word's hash is its bytes as the digits of a number in HASH_BASE, modulo 2^64. Positions are
    # counted from the beginning of all; what comes before a word is divided out again.
    codes = _CODES[raw]
    starts = np.flatnonzero((codes[1:] != 0) & (codes[:-1] == 0)) + 1
    if len(codes) and codes[0]:
        starts = np.insert(starts, 0, 0)
    if len(starts) < NGRAM:
        return np.empty(0, np.uint64)
    words = np.add.reduceat(codes * powers(HASH_BASE, len(raw)), starts)
    words *= powers(HASH_BASE_INVERSE, len(raw))[starts]
    words = _mixed(words)

    count = len(words) - NGRAM + 1
    hashes = np.zeros(count, np.uint64)
    for offset, factor in enumerate(powers(HASH_BASE, NGRAM)):
        hashes += words[offset : offset + count] * factor
    ends = np.cumsum([len(document) + 1 for document in documents])
    document = np.searchsorted(ends, starts, side="right")
    within_one: Hashes = _mixed(hashes)[document[:count] == document[NGRAM - 1 :]]
    return within_one


def powers(base: int, count: int) -> Hashes:
    """Returns base, base^2, ... modulo 2^64, (count,)."""
    return np.cumprod(np.full(count, base, np.uint64), dtype=np.uint64)


def _mixed(hashes: Hashes) -> Hashes:
    """Makes each bit depend on all: the low ones decide what is sampled."""
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(HASH_BASE)
    hashes ^= hashes >> np.uint64(29)
    return hashes


def _sampled_ngrams(bits: int, texts: Texts) -> Hashes:
    return _sample(ngrams(texts), bits)


def _sample(hashes: Hashes, bits: int) -> Hashes:
    """Returns one in 2^bits."""
    sampled: Hashes = hashes[hashes & np.uint64(2**bits - 1) == 0]
    return sampled


def _batches(chunks: Iterator[tuple[str, str]]) -> Iterator[Texts]:
    """Yields the chunks in lists of at least BATCH_CHARACTERS.

    If a list ends within a document, the next one repeats its last 200 characters, so that it has
    the 8-grams across that edge. A word that the edge cuts adds a few 8-grams that are not there.
    """
    batch: Texts = []
    size = 0
    for doc, text in chunks:
        if size >= BATCH_CHARACTERS:
            yield batch
            last_doc, last = batch[-1]
            batch, size = [(doc, last[-200:])] if last_doc == doc else [], 0
        batch.append((doc, text))
        size += len(text)
    if batch:
        yield batch
