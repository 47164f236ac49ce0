"""Tokens of one or more bytes: plain bytes, byte pair encoding, GPT-2's vocabulary.

Uses vocabularies; bpe_training.py learns one from text, gpt2_vocab.py reads GPT-2's.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gpt.tokenizers.base import (
    FORMAT,
    Corpus,
    StreamingDecoder,
    TokenizerSpec,
    checked_ids,
    id_dtype,
    strict_encode,
)
from gpt.tokenizers.chunking import PATTERNS, Pattern, rechunk, split_long
from gpt.types import Ids

if TYPE_CHECKING:
    import tiktoken

MAX_VOCAB_SIZE = 2**20
GPT2_TOKENS = 50256

# The printable bytes as themselves (in the order of GPT-2's first ids), the others from U+0100 on:
# bytes_to_unicode in encoder.py of the release (Radford et al. 2019).
_PRINTABLE = [byte for byte in range(256) if chr(byte).isprintable() and byte != ord(" ")]
_UNPRINTABLE = [byte for byte in range(256) if byte not in _PRINTABLE]
BYTE_TO_UNICODE = {byte: chr(byte) for byte in _PRINTABLE} | {
    byte: chr(256 + index) for index, byte in enumerate(_UNPRINTABLE)
}


class ByteSpec(TokenizerSpec):
    """Nothing is learned."""

    kind: Literal["byte"]

    def tokenizer(self) -> "ByteTokenizer":
        return ByteTokenizer(has_bos=self.has_bos)


class BPESpec(TokenizerSpec):
    """`tokens` in the order of the merges; a character stands for a byte, U+0000 to U+00FF."""

    kind: Literal["bpe"]
    pattern: Pattern
    tokens: list[str] = Field(min_length=256, max_length=MAX_VOCAB_SIZE)

    def tokenizer(self) -> "BPETokenizer":
        return BPETokenizer(_tokens_as_bytes(self.tokens), self.pattern, has_bos=self.has_bos)


class GPT2Spec(TokenizerSpec):
    """`tokens` as for BPESpec."""

    kind: Literal["gpt2"]
    tokens: list[str] = Field(min_length=GPT2_TOKENS, max_length=GPT2_TOKENS)

    def tokenizer(self) -> "GPT2Tokenizer":
        return GPT2Tokenizer(_tokens_as_bytes(self.tokens), has_bos=self.has_bos)


def _tokens_as_bytes(texts: list[str]) -> list[bytes]:
    """Raises ValueError unless the tokens are distinct and every byte is one of them."""
    try:
        tokens = [text.encode("latin-1") for text in texts]
    except UnicodeEncodeError as error:
        raise ValueError(f"a token has a character above U+00FF: {error.object[:20]!r}") from None
    known = set(tokens)
    if len(known) != len(tokens) or b"" in known:
        raise ValueError("a token is empty or occurs twice")
    if any(bytes([byte]) not in known for byte in range(256)):
        raise ValueError("not every byte is a token, so some texts have no ids")
    return tokens


class _ByteTokenTable:
    """Decoding for tokenizers whose ids stand for bytes; those of `bos` are b""."""

    def __init__(self, tokens: list[bytes], *, has_bos: bool) -> None:
        self._tokens = tokens + [b""] * has_bos
        self.bos = len(tokens) if has_bos else None
        self.vocab_size = len(self._tokens)
        self.dtype = id_dtype(self.vocab_size)

    def decode(self, ids: Ids | list[int]) -> str:
        """Models may generate bytes that are not UTF-8: they decode to U+FFFD."""
        checked = checked_ids(ids, self.vocab_size).tolist()
        return b"".join([self._tokens[token] for token in checked]).decode(errors="replace")

    def streaming_decoder(self) -> StreamingDecoder:
        return StreamingDecoder(self._tokens)

    def token_bytes(self) -> NDArray[np.int64]:
        return np.array([len(token) for token in self._tokens], dtype=np.int64)


class ByteTokenizer(_ByteTokenTable):
    """The 256 bytes of UTF-8 as ids."""

    def __init__(self, *, has_bos: bool) -> None:
        super().__init__([bytes([byte]) for byte in range(256)], has_bos=has_bos)

    @classmethod
    def make(cls, corpus: Corpus) -> Self:
        return cls(has_bos=corpus.has_bos)

    def encode(self, text: str) -> Ids:
        return np.frombuffer(strict_encode(text), dtype=np.uint8).astype(self.dtype)

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[Ids]:
        return [self.encode(text) for text in texts]

    def spec(self) -> dict[str, Any]:
        return {"format": FORMAT, "kind": "byte", "has_bos": self.bos is not None}


class BPETokenizer(_ByteTokenTable):
    """Byte pair encoding. `tokens`, in id order, are the 256 bytes, then the merges."""

    kind = "bpe"

    def __init__(self, tokens: list[bytes], pattern: Pattern, *, has_bos: bool) -> None:
        super().__init__(tokens, has_bos=has_bos)
        self.pattern = pattern
        self._ranks = {token: rank for rank, token in enumerate(tokens)}

    @classmethod
    def make(cls, corpus: Corpus) -> Self:
        """Learns the merges from the training split alone."""
        # Imported where a vocabulary is learned, so that no training depends on that code.
        from gpt.tokenizers.bpe_training import train_bpe

        texts = (text for _, text in rechunk(corpus.read("train")))
        tokens = train_bpe(texts, corpus.vocab_size - corpus.has_bos, corpus.pattern)
        return cls(tokens, corpus.pattern, has_bos=corpus.has_bos)

    @cached_property
    def _encoding(self) -> "tiktoken.Encoding":
        # Imported where text is encoded: a training at most decodes.
        import tiktoken

        # encode never allows the special token, so its text is plain text. Without any special
        # token, tiktoken searches for the empty string at every character, 1.5 times the time.
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
            strict_encode(text)  # tiktoken would replace a lone surrogate by U+FFFD
        chunks_of_texts = [split_long(text) for text in texts]
        chunks = list(chain.from_iterable(chunks_of_texts))
        _ = self._encoding  # built once, not in each thread
        if threads == 1:
            arrays = iter(self._encode_chunks(chunks))
        else:
            # A task is many short texts: handing over a single one costs more than encoding it.
            size = -(-len(chunks) // (4 * threads)) or 1
            tasks = [chunks[start : start + size] for start in range(0, len(chunks), size)]
            with ThreadPoolExecutor(threads) as pool:
                arrays = chain.from_iterable(pool.map(self._encode_chunks, tasks))
        encoded = []
        for text_chunks in chunks_of_texts:
            ids = [next(arrays) for _ in text_chunks]
            encoded.append(ids[0] if len(ids) == 1 else np.concatenate(ids))
        return encoded

    def _encode_chunks(self, chunks: list[str]) -> list[Ids]:
        encode = self._encoding.encode_to_numpy
        # disallowed_special=(): the text of the special token is no error but text.
        return [encode(chunk, disallowed_special=()).astype(self.dtype) for chunk in chunks]

    def spec(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "kind": self.kind,
            "pattern": self.pattern,
            "tokens": [token.decode("latin-1") for token in self._ranks],
            "has_bos": self.bos is not None,
        }


class GPT2Tokenizer(BPETokenizer):
    """GPT-2's 50,256 tokens. Id 50,256, its <|endoftext|>, always exists, if only as `bos`."""

    kind = "gpt2"

    def __init__(self, tokens: list[bytes], *, has_bos: bool) -> None:
        super().__init__(tokens, "gpt2", has_bos=True)
        if not has_bos:
            self.bos = None

    @classmethod
    def make(cls, corpus: Corpus) -> Self:
        return cls(corpus.gpt2_tokens(), has_bos=corpus.has_bos)

    def spec(self) -> dict[str, Any]:
        return {key: value for key, value in super().spec().items() if key != "pattern"}
