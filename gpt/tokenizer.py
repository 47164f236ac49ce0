"""Text to token ids and back.

    CharTokenizer   one id for each character of the corpus, sorted (65 on Shakespeare)
    ByteTokenizer   one id for each byte of UTF-8; knows every text

Both give the text back exactly: decode(encode(text)) == text. Where a corpus has more than one
document, one further id, `bos`, stands at each document's beginning and after the last one. It is
not a character: no text encodes to it, and it decodes to nothing.

tokenizer.json is one self-contained file. A model carries a copy.
"""

import codecs
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from gpt.config import Config, first_line
from gpt.errors import TokenizerError

Ids = NDArray[np.integer[Any]]
FORMAT = 1
# Larger than any file we write (all of Unicode), checked before the file is read.
MAX_FILE_BYTES = 64 * 2**20


class Tokenizer(Protocol):
    """What the rest of the library asks of a tokenizer."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, `bos` included."""

    @property
    def bos(self) -> int | None:
        """The id at document boundaries, if the corpus has several documents."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint16 where every id fits, else uint32."""

    def encode(self, text: str) -> Ids:
        """Ids of `text`, shape (n,). Raises TokenizerError for a character it does not know."""

    def decode(self, ids: Ids | list[int]) -> str:
        """The text of ids of shape (n,); `bos` becomes nothing."""

    def streaming_decoder(self) -> "StreamingDecoder":
        """Decodes one id at a time, holding back what is not yet a whole character."""

    def token_bytes(self) -> NDArray[np.int64]:
        """UTF-8 bytes that each id stands for, shape (vocab_size,); 0 for `bos`."""

    def spec(self) -> dict[str, Any]:
        """What tokenizer.json holds."""


class StreamingDecoder(Protocol):
    """Turns ids into text one at a time."""

    def feed(self, token: int) -> str:
        """The text that became certain with `token`, possibly empty."""


class CharTokenizer:
    """One id for each of `characters`, in the order given (the corpus's own, sorted)."""

    def __init__(self, characters: str, *, has_bos: bool) -> None:
        self.characters = characters
        self.bos = len(characters) if has_bos else None
        self.vocab_size = len(characters) + has_bos
        self.dtype = np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)
        self._code_points = np.array([ord(c) for c in characters], dtype=np.uint32)
        # One look-up a character; `unknown` marks what is not in the vocabulary.
        self._unknown = np.iinfo(np.uint32).max
        self._ids = np.full(int(self._code_points.max(initial=0)) + 1, self._unknown, np.uint32)
        self._ids[self._code_points] = np.arange(len(characters))

    def encode(self, text: str) -> Ids:
        try:
            code_points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"character {error.start} is a lone surrogate, which no text file can hold"
            ) from None
        ids = self._ids.take(code_points, mode="clip")
        known = (ids != self._unknown) & (code_points < len(self._ids))
        if not known.all():
            at = int(np.argmin(known))
            raise TokenizerError(
                f"character {at} {text[at]!r} (U+{ord(text[at]):04X}) is not among the "
                f"{len(self.characters)} characters the model was trained on; leave it out, "
                "or train with tokenizer.kind=byte"
            )
        return ids.astype(self.dtype)

    def decode(self, ids: Ids | list[int]) -> str:
        checked = _checked(ids, self.vocab_size)
        if self.bos is not None:
            checked = checked[checked != self.bos]
        return self._code_points[checked].tobytes().decode("utf-32-le")

    def streaming_decoder(self) -> StreamingDecoder:
        return _CharacterStream(self)

    def token_bytes(self) -> NDArray[np.int64]:
        sizes = [len(c.encode()) for c in self.characters]
        return np.array(sizes + [0] * (self.bos is not None), dtype=np.int64)

    def spec(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "kind": "char",
            "characters": self.characters,
            "has_bos": self.bos is not None,
        }


class ByteTokenizer:
    """The 256 bytes. Ids that are no valid UTF-8 decode to U+FFFD, as models may write them."""

    def __init__(self, *, has_bos: bool) -> None:
        self.bos = 256 if has_bos else None
        self.vocab_size = 256 + has_bos
        self.dtype = np.dtype(np.uint16)

    def encode(self, text: str) -> Ids:
        try:
            raw = text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"character {error.start} is a lone surrogate, which no text file can hold"
            ) from None
        return np.frombuffer(raw, dtype=np.uint8).astype(np.uint16)

    def decode(self, ids: Ids | list[int]) -> str:
        checked = _checked(ids, self.vocab_size)
        return checked[checked < 256].astype(np.uint8).tobytes().decode(errors="replace")

    def streaming_decoder(self) -> StreamingDecoder:
        return _ByteStream()

    def token_bytes(self) -> NDArray[np.int64]:
        return np.array([1] * 256 + [0] * (self.bos is not None), dtype=np.int64)

    def spec(self) -> dict[str, Any]:
        return {"format": FORMAT, "kind": "byte", "has_bos": self.bos is not None}


class _CharacterStream:
    def __init__(self, tokenizer: CharTokenizer) -> None:
        self._tokenizer = tokenizer

    def feed(self, token: int) -> str:
        return self._tokenizer.decode([token])


class _ByteStream:
    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: int) -> str:
        return self._decoder.decode(bytes([token])) if token < 256 else ""


def _checked(ids: Ids | list[int], vocab_size: int) -> NDArray[np.int64]:
    checked = np.asarray(ids, dtype=np.int64)
    outside = checked[(checked < 0) | (checked >= vocab_size)]
    if outside.size:
        raise TokenizerError(
            f"token id {int(outside[0])} is outside the vocabulary of {vocab_size}; "
            "the tokens and the tokenizer do not belong together"
        )
    return checked


class _CharFile(Config):
    format: Literal[1]
    kind: Literal["char"]
    characters: str = Field(min_length=1)
    has_bos: bool


class _ByteFile(Config):
    format: Literal[1]
    kind: Literal["byte"]
    has_bos: bool


_FILE: TypeAdapter[_CharFile | _ByteFile] = TypeAdapter(
    Annotated[_CharFile | _ByteFile, Field(discriminator="kind")]
)


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json. Raises TokenizerError where it cannot be used."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TokenizerError(f"{path}: larger than {MAX_FILE_BYTES} bytes, not a tokenizer")
        spec = _FILE.validate_json(path.read_bytes())
    except OSError as error:
        raise TokenizerError(
            f"{path}: {error.strerror}; run the stages before: dvc repro"
        ) from None
    except ValidationError as error:
        raise TokenizerError(f"{path}: not a tokenizer file ({first_line(error)})") from None
    if isinstance(spec, _ByteFile):
        return ByteTokenizer(has_bos=spec.has_bos)
    if len(set(spec.characters)) != len(spec.characters):
        raise TokenizerError(f"{path}: not a tokenizer file (a character stands twice)")
    return CharTokenizer(spec.characters, has_bos=spec.has_bos)
