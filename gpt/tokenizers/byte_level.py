"""Tokens of one or more bytes: plain bytes, byte pair encoding, GPT-2's vocabulary.

Uses vocabularies only; bpe_training.py learns one from text, gpt2_vocab.py reads GPT-2's.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpt.tokenizers.base import FORMAT, StreamingDecoder, checked_ids, id_dtype, strict_encode
from gpt.tokenizers.chunking import split_long
from gpt.types import Ids

if TYPE_CHECKING:
    import tiktoken

# How GPT-2 and GPT-4 split text into pre-tokens, which no token crosses. The possessive `++` never
# backtracks, which makes these patterns fast.
PATTERNS = {
    "gpt2": (r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"),
    "gpt4": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
        r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
}
Pattern = Literal["gpt2", "gpt4"]

# The printable bytes as themselves (in the order of GPT-2's first ids), the others from U+0100 on:
# bytes_to_unicode in encoder.py of the release (Radford et al. 2019).
_PRINTABLE = [byte for byte in range(256) if chr(byte).isprintable() and byte != ord(" ")]
_UNPRINTABLE = [byte for byte in range(256) if byte not in _PRINTABLE]
BYTE_TO_UNICODE = {byte: chr(byte) for byte in _PRINTABLE} | {
    byte: chr(256 + index) for index, byte in enumerate(_UNPRINTABLE)
}


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

    def spec(self) -> dict[str, Any]:
        return {key: value for key, value in super().spec().items() if key != "pattern"}
