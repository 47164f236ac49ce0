"""One tokenizer of each kind, for tests of what they have in common."""

from functools import cache

from hypothesis import strategies as st

from gpt.tokenizers.base import Tokenizer
from gpt.tokenizers.bpe_reference import count_pre_tokens, train, vocabulary
from gpt.tokenizers.byte_level import (
    GPT2_TOKENS,
    BPETokenizer,
    ByteTokenizer,
    GPT2Tokenizer,
)
from gpt.tokenizers.char import CharTokenizer
from gpt.tokenizers.chunking import PATTERNS, Pattern

SAMPLE = "the hat that the cat sat on; the été of 1999 isn't the 😀 😀 one\n\n" * 3
KINDS = ["char", "byte", "bpe-gpt2", "bpe-gpt4", "gpt2"]
# Characters that the patterns treat differently, so that they are frequent.
TRICKY = st.text(alphabet="ab 's\n\r\t19!é\u3000😀<|endoftext|>\x1c\u0301\u017f")


def char_tokenizer(text: str, *, has_bos: bool = False) -> CharTokenizer:
    return CharTokenizer("".join(sorted(set(text))), has_bos=has_bos)


@cache
def byte_level_tokenizers(has_bos: bool) -> list[Tokenizer]:
    """Tokenizers that encode every text; GPT-2's has the right number of tokens, not its tokens."""
    tokenizers: list[Tokenizer] = [ByteTokenizer(has_bos=has_bos)]
    patterns: list[Pattern] = ["gpt2", "gpt4"]
    for pattern in patterns:
        tokens = vocabulary(train(count_pre_tokens([SAMPLE], PATTERNS[pattern]), 300))
        tokenizers.append(BPETokenizer(tokens, pattern, has_bos=has_bos))
    return [*tokenizers, GPT2Tokenizer(as_many_tokens_as_gpt2(), has_bos=has_bos)]


def as_many_tokens_as_gpt2() -> list[bytes]:
    """50,256 tokens; the bytes are in reverse order and not all of them come first."""
    pairs = [bytes([left, right]) for left in range(256) for right in range(256)]
    single = [bytes([byte]) for byte in reversed(range(256))]
    return [*single[:200], *pairs[: GPT2_TOKENS - 256], *single[200:]]


def every_tokenizer(text: str, *, has_bos: bool) -> list[Tokenizer]:
    """One of each kind, in the order of KINDS; `char` with the characters of `text`."""
    return [char_tokenizer(text, has_bos=has_bos), *byte_level_tokenizers(has_bos)]
