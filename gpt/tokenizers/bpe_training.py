"""Where vocabularies come from: the text itself, or GPT-2's published file.

    characters       all of the corpus            -> CharTokenizer
    train_bpe        merges, by rustbpe           -> BPETokenizer
    frequent_words   with a floor, and a ceiling  -> WordTokenizer
    gpt2_tokens      of the file vocab.bpe        -> GPT2Tokenizer

`texts` is called for an iterator over the text, in parts whose pieces are the text's own (see
gpt.tokenizers.base.recut), and may be called more than once. Memory grows with the number of
different
pieces, not with the text. Knows no network: the file's bytes are handed in.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from gpt.errors import TokenizerError
from gpt.tokenizers.base import PATTERNS, BPETokenizer, Pattern
from gpt.tokenizers.bpe_reference import Pair, count_pieces, merges_of
from gpt.tokenizers.byte_level import BYTE_TO_UNICODE

Texts = Callable[[], Iterator[str]]

GPT2_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe"
GPT2_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
# The name under which tiktoken keeps it.
GPT2_FILE = hashlib.sha1(GPT2_URL.encode(), usedforsecurity=False).hexdigest()


def characters(texts: Iterable[str]) -> str:
    """Every character that occurs, once, sorted."""
    seen = np.zeros(0x110000, dtype=bool)
    known = b""
    for text in texts:
        try:
            # Without the characters known by now hardly any text is left to look at.
            known += bytes(set(text.encode("latin-1").translate(None, known)))
        except UnicodeEncodeError:
            seen[np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)] = True
    seen[list(known)] = True
    return np.flatnonzero(seen).astype(np.uint32).tobytes().decode("utf-32-le")


def train_bpe(
    texts: Texts, *, vocab_size: int, min_frequency: int, pattern: Pattern
) -> list[bytes]:
    """The 256 bytes, and the merges of byte pair encoding, at most `vocab_size` together.

    Fewer where nothing is left to merge, or where the next merge would be made fewer than
    `min_frequency` times. rustbpe counts pieces and pairs in 32 bits: enough for text of some tens
    of GB.
    """
    import rustbpe

    trainer = rustbpe.Tokenizer()
    # It reads so many texts before it counts them, so this bounds memory.
    trainer.train_from_iterator(texts(), vocab_size, buffer_size=64, pattern=PATTERNS[pattern])
    tokens = [bytes(token) for token, _ in trainer.get_mergeable_ranks()]
    if min_frequency > 1:
        tokens = tokens[: _frequent_enough(tokens, texts, min_frequency, pattern)]
    return tokens


def _frequent_enough(tokens: list[bytes], texts: Texts, floor: int, pattern: Pattern) -> int:
    """How many tokens stay if no merge may be made fewer than `floor` times.

    rustbpe does not tell how often it merged. But each token of the encoded text was made once, and
    so were the two that it was merged from: counts go down from the last merge to the first. The
    text is read only until every merge is known to be frequent enough.
    """
    tokenizer = BPETokenizer(tokens, pattern, has_bos=False)
    merges = merges_of(tokens)
    counts = np.zeros(len(tokens), dtype=np.int64)
    made = counts
    for batch in batches(texts()):
        for ids in tokenizer.encode_batch(batch):
            counts += np.bincount(ids, minlength=len(tokens))
        made = _times_made(counts, merges)
        if (made[256:] >= floor).all():
            return len(tokens)
    rare = np.flatnonzero(made[256:] < floor)
    return 256 + int(rare[0]) if rare.size else len(tokens)


def _times_made(counts: NDArray[np.int64], merges: list[Pair]) -> NDArray[np.int64]:
    made = counts.tolist()
    for number in range(len(merges) - 1, -1, -1):
        left, right = merges[number]
        made[left] += made[256 + number]
        made[right] += made[256 + number]
    return np.array(made, dtype=np.int64)


def batches(texts: Iterable[str], size: int = 2**20) -> Iterator[list[str]]:
    """Texts in lists of at least `size` characters together, the last one excepted."""
    batch, held = [], 0
    for text in texts:
        batch.append(text)
        held += len(text)
        if held >= size:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def frequent_words(
    texts: Texts, *, vocab_size: int, min_frequency: int, pattern: Pattern
) -> list[str]:
    """Words that occur at least `min_frequency` times, most frequent first.

    At most as many as fit into `vocab_size` beside the 256 bytes. A word of a single byte needs no
    further id.
    """
    counts = count_pieces(texts(), PATTERNS[pattern])
    words = [
        (-count, word) for word, count in counts.items() if count >= min_frequency and len(word) > 1
    ]
    return [word.decode() for _, word in sorted(words)[: max(0, vocab_size - 256)]]


def gpt2_tokens(vocab_bpe: bytes) -> list[bytes]:
    """GPT-2's tokens, in the order of their ids, from the bytes of its file vocab.bpe.

    Raises TokenizerError where that is another file.
    """
    if hashlib.sha256(vocab_bpe).hexdigest() != GPT2_SHA256:
        raise TokenizerError("vocab.bpe: not GPT-2's file (wrong sha256); delete it")
    byte_of = {character: byte for byte, character in BYTE_TO_UNICODE.items()}
    tokens = [bytes([byte]) for byte in BYTE_TO_UNICODE]
    for line in vocab_bpe.decode().splitlines()[1:]:
        tokens.append(bytes(byte_of[character] for character in line.replace(" ", "")))
    return tokens
