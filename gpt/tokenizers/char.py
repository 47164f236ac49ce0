"""Characters as tokens."""

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gpt.errors import TokenizerError
from gpt.tokenizers.base import (
    FORMAT,
    Corpus,
    StreamingDecoder,
    TokenizerSpec,
    checked_ids,
    id_dtype,
    strict_encode,
)
from gpt.types import Ids


class CharSpec(TokenizerSpec):
    """`characters` in the order of their ids, each once."""

    kind: Literal["char"]
    characters: str = Field(min_length=1)

    def tokenizer(self) -> "CharTokenizer":
        if len(set(self.characters)) != len(self.characters):
            raise ValueError("a character occurs twice")
        return CharTokenizer(self.characters, has_bos=self.has_bos)


class CharTokenizer:
    """One id per character of `characters`, in the order given."""

    def __init__(self, characters: str, *, has_bos: bool) -> None:
        self.characters = characters
        self.bos = len(characters) if has_bos else None
        self.vocab_size = len(characters) + has_bos
        self.dtype = id_dtype(self.vocab_size)
        self._code_points = np.array([ord(c) for c in characters], dtype=np.uint32)
        # Lookup table from code point to id; its last entry stands for all code points beyond it.
        dtype = np.uint16 if self.vocab_size < 2**16 else np.uint32
        self._unknown = np.iinfo(dtype).max
        size = max(256, int(self._code_points.max(initial=0)) + 2)
        self._ids = np.full(size, self._unknown, dtype)
        self._ids[self._code_points] = np.arange(len(characters))
        # A byte-to-byte table for bytes.translate, several times as fast, if ids fit into a byte.
        self._latin_ids: bytes | None = None
        if len(characters) <= 255:
            self._latin_ids = np.minimum(self._ids[:256], 255).astype(np.uint8).tobytes()

    @classmethod
    def make(cls, corpus: Corpus) -> Self:
        """Every character of all three splits gets an id, as in nanoGPT."""
        texts = (text for split in ("train", "val", "test") for _, text in corpus.read(split))
        return cls(distinct_characters(texts), has_bos=corpus.has_bos)

    def encode(self, text: str) -> Ids:
        try:
            latin = text.encode("latin-1")
            if self._latin_ids is not None:
                narrow = latin.translate(self._latin_ids)
                if 255 not in narrow:
                    return np.frombuffer(narrow, np.uint8).astype(self.dtype)
            ids = self._ids.take(np.frombuffer(latin, np.uint8))
        except UnicodeEncodeError:
            code_points = np.frombuffer(strict_encode(text, "utf-32-le"), np.uint32)
            ids = self._ids.take(code_points, mode="clip")
        unknown = ids == self._unknown
        if unknown.any():
            index = int(np.argmax(unknown))
            raise TokenizerError(
                f"character {index} {text[index]!r} (U+{ord(text[index]):04X}) is not among the "
                f"{len(self.characters)} characters the model was trained on; {self._remedy(text)}"
            )
        return ids.astype(self.dtype, copy=False)

    def _remedy(self, text: str) -> str:
        known = set(self.characters)
        if known.issuperset(unicodedata.normalize("NFC", text)):
            return "its letters are decomposed, as macOS writes them: normalize the text to NFC"
        if known.issuperset(unicodedata.normalize("NFD", text)):
            return "its letters are composed: normalize the text to NFD"
        return "leave it out, or train with tokenizer.kind=byte"

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[Ids]:
        try:
            # A character is one id, so short texts cost no more than a long one.
            ids = self.encode("".join(texts))
        except TokenizerError:
            return [self.encode(text) for text in texts]  # the error counts from its own text
        starts = accumulate(map(len, texts), initial=0)
        return [ids[start:end] for start, end in pairwise(starts)]

    def decode(self, ids: Ids | list[int]) -> str:
        checked = checked_ids(ids, self.vocab_size)
        if self.bos is not None:
            checked = checked[checked != self.bos]
        return self._code_points[checked].tobytes().decode("utf-32-le")

    def streaming_decoder(self) -> StreamingDecoder:
        return StreamingDecoder([*map(str.encode, self.characters), b""])

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


def distinct_characters(texts: Iterable[str]) -> str:
    """Collects every character that occurs, once, sorted: the vocabulary of CharTokenizer."""
    seen = np.zeros(0x110000, dtype=bool)
    known = b""
    for text in texts:
        try:
            # Without the characters that are known, hardly any text is left to scan.
            known += bytes(set(text.encode("latin-1").translate(None, known)))
        except UnicodeEncodeError:
            seen[np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)] = True
    seen[list(known)] = True
    return np.flatnonzero(seen).astype(np.uint32).tobytes().decode("utf-32-le")
