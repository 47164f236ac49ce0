"""Our tokenizers in the format of Hugging Face's `tokenizers`, giving the same ids.

Also the tokens and merges that this and GGUF share.
"""

import re
from typing import Any

from gpt.tokenizers.base import Tokenizer
from gpt.tokenizers.bpe_reference import merges_of
from gpt.tokenizers.byte_level import BYTE_TO_UNICODE
from gpt.tokenizers.char import CharTokenizer
from gpt.tokenizers.chunking import PATTERNS

END_OF_TEXT = "<|endoftext|>"


def hugging_face_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """What tokenizer.json holds there.

    A character that a `char` tokenizer lacks raises an error there, as it does here.
    """
    bos = {
        "id": tokenizer.bos,
        "content": END_OF_TEXT,
        "special": True,
        **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
    }
    spec: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [] if tokenizer.bos is None else [bos],
        **dict.fromkeys(("truncation", "padding", "normalizer", "post_processor"), None),
    }
    if isinstance(tokenizer, CharTokenizer):
        return spec | {
            "pre_tokenizer": _split(r"[\s\S]"),
            # No character is this one, which makes an unknown character an error.
            "model": {"type": "WordLevel", "vocab": vocabulary(tokenizer), "unk_token": "<unk>"},
            "decoder": {"type": "Fuse"},
        }
    _, merges = byte_pairs(tokenizer)
    pattern = getattr(tokenizer, "pattern", None)
    splits = [_split(_for_oniguruma(PATTERNS[pattern]))] if pattern else []
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    return spec | {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, byte_level]},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": vocabulary(tokenizer),
            "merges": [[printable(left), printable(right)] for left, right in merges],
            **dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix"), None),
            **dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False),
        },
    }


def vocabulary(tokenizer: Tokenizer) -> dict[str, int]:
    """Every token but `bos` as that format writes it, with its id."""
    if isinstance(tokenizer, CharTokenizer):
        return {character: index for index, character in enumerate(tokenizer.characters)}
    spec = tokenizer.spec()
    tokens = spec["tokens"] if "tokens" in spec else map(chr, range(256))
    return {printable(token.encode("latin-1")): index for index, token in enumerate(tokens)}


def byte_pairs(tokenizer: Tokenizer) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
    """All tokens in the order of their ids, and the two that each longer one is merged from."""
    spec = tokenizer.spec()
    if spec["kind"] == "byte":
        return [bytes([byte]) for byte in range(256)], []
    tokens = [token.encode("latin-1") for token in spec["tokens"]]
    return tokens, [(tokens[left], tokens[right]) for left, right in merges_of(tokens)]


def printable(token: bytes) -> str:
    """A token as GPT-2's files write it."""
    return "".join(BYTE_TO_UNICODE[byte] for byte in token)


def _split(pattern: str) -> dict[str, Any]:
    regex = {"Regex": pattern}
    return {"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": False}


def _for_oniguruma(pattern: str) -> str:
    """The pattern for the engine of `tokenizers`, whose `$` is the end of any line.

    It reads `{1,3}+` otherwise too. Possessive `++` and `?+` only save time: these patterns split
    the same way without them.
    """
    return re.sub(r"([+*?}])\+", r"\1", pattern).replace("$", r"\z")
