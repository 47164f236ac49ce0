"""Part 1: text to ids, and back. Written by you; `gpt workshop check 1` tells how far you are."""

Pair = tuple[int, int]


class CharTokenizer:
    """One id for each character of a text: 0, 1, 2, ... in sorted order."""

    def __init__(self, text: str) -> None:
        raise NotImplementedError

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        raise NotImplementedError

    def encode(self, text: str) -> list[int]:
        """The id of each character. Raises ValueError, naming it, for one that has no id."""
        raise NotImplementedError

    def decode(self, ids: list[int]) -> str:
        """The text of ids: what `encode` was given."""
        raise NotImplementedError


def most_frequent_pair(ids: list[int]) -> Pair | None:
    """The most frequent pair of neighbours; of several the smallest.

    None if no pair occurs twice.
    """
    raise NotImplementedError


def merge(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    """`ids` with `new_id` in place of each `pair`, from left to right."""
    raise NotImplementedError


def train_bpe(text: str, vocab_size: int) -> list[Pair]:
    """Byte pair encoding: the pairs that become the ids 256, 257, ..., in this order.

    Begins with the text's UTF-8 bytes as ids 0 to 255. Ends at `vocab_size` ids, or if no pair
    occurs twice.
    """
    raise NotImplementedError


def encode_bpe(text: str, merges: list[Pair]) -> list[int]:
    """The bytes of `text`, with the pairs of `merges` merged in their order."""
    raise NotImplementedError


def decode_bpe(ids: list[int], merges: list[Pair]) -> str:
    """The text of ids: what `encode_bpe` was given."""
    raise NotImplementedError
