"""The interface of every tokenizer: char.py and byte_level.py implement it, file.py lists them.

Encoding is lossless: decode(encode(text)) == text. If a corpus has more than one document, one more
id, `bos`, precedes each document and ends the split. It is not a character: no text encodes to it
(`<|endoftext|>` is thirteen characters like any others), and it decodes to nothing.
"""

import codecs
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from gpt.config import Config
from gpt.errors import TokenizerError
from gpt.tokenizers.chunking import Pattern
from gpt.types import Ids

FORMAT = 1  # of tokenizer.json, see file.py


class TokenizerSpec(Config):
    """What is read from tokenizer.json; a subclass adds its `kind` and its vocabulary."""

    format: Literal[1]
    has_bos: bool

    def tokenizer(self) -> "Tokenizer":
        """Raises ValueError for a spec of the right form that does not describe a tokenizer."""
        raise NotImplementedError


@dataclass(frozen=True)
class Corpus:
    """What a tokenizer is made from: the texts of each split, and what the user asks for."""

    read: Callable[[str], Iterable[tuple[str, str]]]  # split -> (document, chunk of its text)
    has_bos: bool
    vocab_size: int
    pattern: Pattern
    gpt2_tokens: Callable[[], list[bytes]]  # reads GPT-2's published vocabulary


class StreamingDecoder:
    """Decodes one id at a time; `tokens` are the UTF-8 bytes of each id."""

    def __init__(self, tokens: list[bytes]) -> None:
        self._tokens = tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: int) -> str:
        """Returns the characters that `token` completes, possibly none."""
        return self._decoder.decode(self._tokens[token])

    def flush(self) -> str:
        """Returns U+FFFD for an incomplete character, as `decode` does, or nothing."""
        return self._decoder.decode(b"", final=True)


class Tokenizer(Protocol):
    """What the rest of the library needs of a tokenizer."""

    @classmethod
    def make(cls, corpus: Corpus) -> Self:
        """Makes the tokenizer of a corpus."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, `bos` included."""

    @property
    def bos(self) -> int | None:
        """The id at document boundaries; None if the corpus is a single document."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint16 if every id fits, else uint32."""

    def encode(self, text: str) -> Ids:
        """Encodes `text` to ids (n,). Raises TokenizerError for a character without an id."""

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[Ids]:
        """Encodes each of `texts`, in several threads where that is faster."""

    def decode(self, ids: Ids | list[int]) -> str:
        """Decodes ids (n,) to text. Raises TokenizerError for an id outside the vocabulary."""

    def streaming_decoder(self) -> StreamingDecoder:
        """Makes a decoder that holds back the bytes of an incomplete character."""

    def token_bytes(self) -> NDArray[np.int64]:
        """Counts the UTF-8 bytes of each token, (vocab_size,); 0 for `bos`."""

    def spec(self) -> dict[str, Any]:
        """Returns the content of tokenizer.json."""


def line_breaks(tokenizer: Tokenizer) -> list[int]:
    """Lists the ids that end a line: all tokens with a line break in their text, and `bos`."""
    ids = range(tokenizer.vocab_size)
    return [id for id in ids if id == tokenizer.bos or "\n" in tokenizer.decode([id])]


def id_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest dtype that token files use for `vocab_size` ids."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)


def strict_encode(text: str, encoding: str = "utf-8") -> bytes:
    """Encodes text to bytes. Raises TokenizerError for a lone surrogate."""
    try:
        return text.encode(encoding)
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"character {error.start} is a lone surrogate, which no text file can hold; remove it"
        ) from None


def checked_ids(ids: Ids | list[int], vocab_size: int) -> NDArray[np.int64]:
    """Returns `ids` as an array. Raises TokenizerError for one outside the vocabulary."""
    checked = np.asarray(ids, dtype=np.int64)
    outside = checked[(checked < 0) | (checked >= vocab_size)]
    if outside.size:
        raise TokenizerError(
            f"token id {int(outside[0])} is outside the vocabulary of {vocab_size}; "
            "use the tokenizer.json that these tokens were made with"
        )
    return checked
