"""Learning the vocabulary of BPETokenizer from text, with rustbpe."""

from collections.abc import Iterable

from gpt.tokenizers.chunking import PATTERNS, Pattern


def train_bpe(texts: Iterable[str], vocab_size: int, pattern: Pattern) -> list[bytes]:
    """Learns a byte pair encoding; returns its tokens: the 256 bytes, then the merges in order.

    At most `vocab_size` tokens, fewer if nothing is left to merge. `texts` are cut at safe
    boundaries (chunking.rechunk). Memory grows with the number of distinct pre-tokens, not with the
    text. rustbpe counts in 32 bits, which suffices for some tens of GB.
    """
    import rustbpe  # Imported here: only this function needs it.

    trainer = rustbpe.Tokenizer()
    # buffer_size, the texts read before they are counted, bounds memory.
    trainer.train_from_iterator(iter(texts), vocab_size, buffer_size=64, pattern=PATTERNS[pattern])
    return [bytes(token) for token, _ in trainer.get_mergeable_ranks()]
