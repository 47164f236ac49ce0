"""Text to token ids and back.

    CharTokenizer   one id for each character of the corpus, sorted (65 on Shakespeare)
    ByteTokenizer   one id for each byte of UTF-8; knows every text
    BPETokenizer    bytes, and what byte pair encoding made of them in the training text
    GPT2Tokenizer   the same, with the 50,257 ids of GPT-2
    WordTokenizer   one id for each frequent word; rare ones become bytes

All give the text back exactly: decode(encode(text)) == text. Where a corpus has more than one
document, one further id, `bos`, stands at each document's beginning and after the last one. It is
not a character: no text encodes to it (also not `<|endoftext|>`, which is thirteen characters like
any others), and it decodes to nothing.

tokenizer.json is one self-contained file. A model carries a copy. By `kind`, beside `has_bos`:

    char    characters   all of them, in the order of their ids
    byte
    bpe     tokens       in the order of their ids, which is that of the merges; each character of a
                         token is one of its bytes (U+0000 to U+00FF), so ASCII can be read
            pattern      gpt2 | gpt4: how text is cut into pieces, which no token reaches across
    gpt2    tokens       as for bpe
    word    words        most frequent first; their ids come after those of the 256 bytes
            pattern      gpt2 | gpt4: what a word is

This module uses vocabularies; gpt/tokenizers/bpe_training.py makes them.
"""

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from gpt.config import Config, first_line
from gpt.errors import TokenizerError

if TYPE_CHECKING:
    import tiktoken

Ids = NDArray[np.integer[Any]]
FORMAT = 1
# Larger than any file we write (all of Unicode), checked before the file is read.
MAX_FILE_BYTES = 64 * 2**20
MAX_VOCAB_SIZE = 2**20
GPT2_TOKENS = 50256

# How GPT-2 and GPT-4 cut text into pieces. `++` gives nothing back, which is what makes it fast.
PATTERNS = {
    "gpt2": (r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"),
    "gpt4": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
        r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
}
Pattern = Literal["gpt2", "gpt4"]
# In characters. Their engine gives up (with a panic) at a million white spaces in a row.
CHUNK = 2**18


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

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[Ids]:
        """encode(text) for each of `texts`, where it helps on several threads."""

    def decode(self, ids: Ids | list[int]) -> str:
        """The text of ids of shape (n,); `bos` becomes nothing."""

    def streaming_decoder(self) -> "StreamingDecoder":
        """Decodes one id at a time, holding back what is not yet a whole character."""

    def token_bytes(self) -> NDArray[np.int64]:
        """UTF-8 bytes that each id stands for, shape (vocab_size,); 0 for `bos`."""

    def spec(self) -> dict[str, Any]:
        """What tokenizer.json holds."""


def line_breaks(tokenizer: Tokenizer) -> list[int]:
    """The ids after which a line begins: those with a line break in their text, and `bos`."""
    ids = range(tokenizer.vocab_size)
    return [id for id in ids if id == tokenizer.bos or "\n" in tokenizer.decode([id])]


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
        # One look-up a character. The entry after the last character stands for all beyond it.
        wide = np.uint16 if self.vocab_size < 2**16 else np.uint32
        self._unknown = np.iinfo(wide).max
        size = max(256, int(self._code_points.max(initial=0)) + 2)
        self._ids = np.full(size, self._unknown, wide)
        self._ids[self._code_points] = np.arange(len(characters))
        # The same for a byte a character, which is mostly enough, where an id fits into one too.
        self._bytes: bytes | None = None
        if len(characters) <= 255:
            self._bytes = np.minimum(self._ids[:256], 255).astype(np.uint8).tobytes()

    def encode(self, text: str) -> Ids:
        try:
            latin = text.encode("latin-1")
            if self._bytes is not None:
                narrow = latin.translate(self._bytes)
                if 255 not in narrow:
                    return np.frombuffer(narrow, np.uint8).astype(self.dtype)
            ids = self._ids.take(np.frombuffer(latin, np.uint8))
        except UnicodeEncodeError:
            raw = _encoded(text, "utf-32-le")
            ids = self._ids.take(np.frombuffer(raw, np.uint32), mode="clip")
        unknown = ids == self._unknown
        if unknown.any():
            at = int(np.argmax(unknown))
            raise TokenizerError(
                f"character {at} {text[at]!r} (U+{ord(text[at]):04X}) is not among the "
                f"{len(self.characters)} characters the model was trained on; leave it out, "
                "or train with tokenizer.kind=byte"
            )
        return ids.astype(self.dtype, copy=False)

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[Ids]:
        # A character is an id: many short texts at the price of one long one.
        return _split(self.encode("".join(texts)), [len(text) for text in texts])

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
        return np.frombuffer(_encoded(text), dtype=np.uint8).astype(np.uint16)

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[Ids]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Ids | list[int]) -> str:
        checked = _checked(ids, self.vocab_size)
        return checked[checked < 256].astype(np.uint8).tobytes().decode(errors="replace")

    def streaming_decoder(self) -> StreamingDecoder:
        return _ByteStream([bytes([byte]) for byte in range(256)] + [b""])

    def token_bytes(self) -> NDArray[np.int64]:
        return np.array([1] * 256 + [0] * (self.bos is not None), dtype=np.int64)

    def spec(self) -> dict[str, Any]:
        return {"format": FORMAT, "kind": "byte", "has_bos": self.bos is not None}


class _TokensOfBytes:
    """What tokenizers share whose ids stand for some bytes each; `bos` for none."""

    def __init__(self, tokens: list[bytes], bos: int | None) -> None:
        self._tokens = tokens
        self.bos = bos
        self.vocab_size = len(tokens)
        self.dtype = np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)

    def decode(self, ids: Ids | list[int]) -> str:
        checked = _checked(ids, self.vocab_size).tolist()
        return b"".join([self._tokens[token] for token in checked]).decode(errors="replace")

    def streaming_decoder(self) -> StreamingDecoder:
        return _ByteStream(self._tokens)

    def token_bytes(self) -> NDArray[np.int64]:
        return np.array([len(token) for token in self._tokens], dtype=np.int64)


class BPETokenizer(_TokensOfBytes):
    """Byte pair encoding. `tokens` hold the 256 bytes, then merges, in the order of their ids."""

    kind = "bpe"

    def __init__(self, tokens: list[bytes], pattern: Pattern, *, has_bos: bool) -> None:
        super().__init__(tokens + [b""] * has_bos, len(tokens) if has_bos else None)
        self.pattern = pattern
        self._ranks = {token: rank for rank, token in enumerate(tokens)}

    @cached_property
    def _encoding(self) -> "tiktoken.Encoding":
        # Imported and built only where something is encoded: training a model decodes at most.
        import tiktoken

        # A control token that no call below allows, so that it is text like any other. With none at
        # all tiktoken looks for the empty string between any two characters, and takes half as long
        # again.
        return tiktoken.Encoding(
            self.kind,
            pat_str=PATTERNS[self.pattern],
            mergeable_ranks=self._ranks,
            special_tokens={"<|endoftext|>": len(self._ranks)},
        )

    def encode(self, text: str) -> Ids:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[Ids]:
        for text in texts:
            _encoded(text)  # tiktoken would put U+FFFD in place of a lone surrogate
        chunked = [_chunks(text) for text in texts]
        flat = [chunk for chunks in chunked for chunk in chunks]
        # A thread takes many short texts at once: handing one over costs more than encoding it.
        share = -(-len(flat) // (4 * threads)) or 1
        shares = [flat[start : start + share] for start in range(0, len(flat), share)]
        if threads == 1:
            encoded = [self._encode_share(flat)]
        else:
            _ = self._encoding  # built once, not by each thread
            with ThreadPoolExecutor(threads) as pool:
                encoded = list(pool.map(self._encode_share, shares))
        arrays = chain.from_iterable(encoded)
        return [_joined([next(arrays) for _ in chunks], self.dtype) for chunks in chunked]

    def _encode_share(self, chunks: list[str]) -> list[Ids]:
        # No control token is allowed unless it is named here.
        encode = self._encoding.encode_to_numpy
        return [encode(chunk, disallowed_special=()).astype(self.dtype) for chunk in chunks]

    def spec(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "kind": "bpe",
            "pattern": self.pattern,
            "tokens": [token.decode("latin-1") for token in self._ranks],
            "has_bos": self.bos is not None,
        }


class GPT2Tokenizer(BPETokenizer):
    """GPT-2's 50,256 tokens. The id 50,256 (its <|endoftext|>) always exists, if only as `bos`."""

    kind = "gpt2"

    def __init__(self, tokens: list[bytes], *, has_bos: bool) -> None:
        super().__init__(tokens, "gpt2", has_bos=True)
        if not has_bos:
            self.bos = None

    def spec(self) -> dict[str, Any]:
        spec = super().spec() | {"kind": "gpt2"}
        del spec["pattern"]
        return spec


class WordTokenizer(_TokensOfBytes):
    """One id for each byte, then one for each of `words`; other words become their bytes."""

    def __init__(self, words: list[str], pattern: Pattern, *, has_bos: bool) -> None:
        tokens = [bytes([byte]) for byte in range(256)] + [word.encode() for word in words]
        super().__init__(tokens + [b""] * has_bos, len(tokens) if has_bos else None)
        self.words, self.pattern = words, pattern
        self._ids = {word: 256 + number for number, word in enumerate(words)}

    @cached_property
    def _pieces(self) -> Any:
        # Imported only where something is encoded. Python's own `re` does not know \p{L}.
        import regex

        return regex.compile(PATTERNS[self.pattern]).findall

    def encode(self, text: str) -> Ids:
        _encoded(text)
        ids: list[int] = []
        known = self._ids.get
        for chunk in _chunks(text):
            for piece in self._pieces(chunk):
                word = known(piece)
                if word is None:
                    ids.extend(piece.encode())
                else:
                    ids.append(word)
        return np.array(ids, dtype=self.dtype)

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[Ids]:
        return [self.encode(text) for text in texts]

    def spec(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "kind": "word",
            "pattern": self.pattern,
            "words": self.words,
            "has_bos": self.bos is not None,
        }


class _CharacterStream:
    def __init__(self, tokenizer: CharTokenizer) -> None:
        self._pieces = list(tokenizer.characters)
        if tokenizer.bos is not None:
            self._pieces.append("")

    def feed(self, token: int) -> str:
        return self._pieces[token]


class _ByteStream:
    def __init__(self, tokens: list[bytes]) -> None:
        self._tokens = tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: int) -> str:
        return self._decoder.decode(self._tokens[token])


# --- long texts -----------------------------------------------------------------------------------


def recut(parts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The same documents in other parts: cut only where pieces end under every pattern.

    So the ids of a document's parts, one after the other, are the ids of the document. A part of
    the result has at most three times as many characters as one of `parts` (CHUNK, if that is
    more); where nothing in so much text may be cut, it is cut all the same.
    """
    held_doc, held = None, ""
    for doc, text in parts:
        if doc != held_doc:
            if held_doc is not None:
                yield held_doc, held
            held_doc, held = doc, text
            continue
        end = _safe_end(held)
        if not end and len(held) > CHUNK:
            end = len(held)
        if end:
            yield held_doc, held[:end]
        held = held[end:] + text
    if held_doc is not None:
        yield held_doc, held


def _safe_end(text: str) -> int:
    """The last place (0: none) where what follows can have no part in the pieces before it.

    No piece has a space after something else, or begins with the line break before it.
    """
    space = len(text)
    while (space := text.rfind(" ", 1, space)) > 0 and text[space - 1].isspace():
        pass
    # After a lone line break, that is.
    line = max((match.end() for match in _LONE_BREAK.finditer(text, max(0, space))), default=0)
    return max(space, line, 0)


_LONE_BREAK = re.compile(r"(?<=\S)\n(?=\S)")


def _chunks(text: str) -> list[str]:
    if len(text) <= CHUNK:
        return [text]
    starts = range(0, len(text), CHUNK)
    return [chunk for _, chunk in recut(("", text[start : start + CHUNK]) for start in starts)]


def _encoded(text: str, encoding: str = "utf-8") -> bytes:
    try:
        return text.encode(encoding)
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"character {error.start} is a lone surrogate, which no text file can hold"
        ) from None


def _joined(arrays: list[Ids], dtype: np.dtype[Any]) -> Ids:
    return arrays[0] if len(arrays) == 1 else np.concatenate([np.empty(0, dtype), *arrays])


def _split(ids: Ids, lengths: list[int]) -> list[Ids]:
    pieces, start = [], 0
    for length in lengths:
        pieces.append(ids[start : start + length])
        start += length
    return pieces


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


class _BPEFile(Config):
    format: Literal[1]
    kind: Literal["bpe"]
    pattern: Pattern
    tokens: list[str] = Field(min_length=256, max_length=MAX_VOCAB_SIZE)
    has_bos: bool


class _GPT2File(Config):
    format: Literal[1]
    kind: Literal["gpt2"]
    tokens: list[str] = Field(min_length=GPT2_TOKENS, max_length=GPT2_TOKENS)
    has_bos: bool


class _WordFile(Config):
    format: Literal[1]
    kind: Literal["word"]
    pattern: Pattern
    words: list[str] = Field(max_length=MAX_VOCAB_SIZE)
    has_bos: bool


_File = _CharFile | _ByteFile | _BPEFile | _GPT2File | _WordFile
_FILE: TypeAdapter[_File] = TypeAdapter(Annotated[_File, Field(discriminator="kind")])


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json. Raises TokenizerError where it cannot be used."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TokenizerError(f"{path}: larger than {MAX_FILE_BYTES} bytes, not a tokenizer")
        spec = _FILE.validate_json(path.read_bytes())
        return _tokenizer_of(spec)
    except OSError as error:
        raise TokenizerError(
            f"{path}: {error.strerror}; run the stages before: dvc repro"
        ) from None
    except ValidationError as error:
        raise TokenizerError(f"{path}: not a tokenizer file ({first_line(error)})") from None
    except _Contradiction as error:
        raise TokenizerError(f"{path}: not a tokenizer file ({error})") from None


class _Contradiction(Exception):
    """A file of the right form that can be no tokenizer."""


def _tokenizer_of(spec: _File) -> Tokenizer:
    if isinstance(spec, _ByteFile):
        return ByteTokenizer(has_bos=spec.has_bos)
    if isinstance(spec, _CharFile):
        if len(set(spec.characters)) != len(spec.characters):
            raise _Contradiction("a character stands twice")
        return CharTokenizer(spec.characters, has_bos=spec.has_bos)
    if isinstance(spec, _WordFile):
        if len(set(spec.words)) != len(spec.words) or "" in spec.words:
            raise _Contradiction("a word is empty or stands twice")
        return WordTokenizer(spec.words, spec.pattern, has_bos=spec.has_bos)
    try:
        tokens = [token.encode("latin-1") for token in spec.tokens]
    except UnicodeEncodeError as error:
        raise _Contradiction(
            f"a token has a character above U+00FF: {error.object[:20]!r}"
        ) from None
    known = set(tokens)
    if len(known) != len(tokens) or b"" in known:
        raise _Contradiction("a token is empty or stands twice")
    # Without them some texts could not be encoded.
    if any(bytes([byte]) not in known for byte in range(256)):
        raise _Contradiction("not every byte is a token")
    if isinstance(spec, _GPT2File):
        return GPT2Tokenizer(tokens, has_bos=spec.has_bos)
    return BPETokenizer(tokens, spec.pattern, has_bos=spec.has_bos)
