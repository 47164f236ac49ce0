"""Where text may be cut: into pre-tokens, and long texts into chunks that no token crosses.

tiktoken's regular expressions give up (with a panic) at a million white spaces in a row, and a
document may be larger than memory; so texts are encoded in chunks, with the ids of the whole text.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Literal

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

CHUNK_CHARACTERS = 2**18

_LONE_LINE_BREAK = re.compile(r"(?<=\S)\n(?=\S)")


def rechunk(chunks: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Moves the cuts between consecutive (doc, text) chunks of a document to safe boundaries.

    The ids of a document's chunks, concatenated, are then the ids of the document, under every
    pattern of PATTERNS. A chunk of the result has at most three times the characters of the longest
    input chunk (or of CHUNK_CHARACTERS): text without a boundary is cut anyway.
    """
    current_doc, buffer = None, ""
    for doc, text in chunks:
        if doc != current_doc:
            if current_doc is not None:
                yield current_doc, buffer
            current_doc, buffer = doc, text
            continue
        end = _last_safe_boundary(buffer)
        if not end and len(buffer) > CHUNK_CHARACTERS:
            end = len(buffer)
        if end:
            yield current_doc, buffer[:end]
        buffer = buffer[end:] + text
    if current_doc is not None:
        yield current_doc, buffer


def split_long(text: str) -> list[str]:
    """Splits a text of more than CHUNK_CHARACTERS at safe boundaries."""
    if len(text) <= CHUNK_CHARACTERS:
        return [text]
    starts = range(0, len(text), CHUNK_CHARACTERS)
    slices = (("", text[start : start + CHUNK_CHARACTERS]) for start in starts)
    return [chunk for _, chunk in rechunk(slices)]


def _last_safe_boundary(text: str) -> int:
    """The last index, or 0, at which a cut changes no pre-token, whatever text follows.

    Safe is before a single space, since no pre-token has a space after something else, and after a
    single line break, since no pre-token continues behind one.
    """
    space = len(text)
    while (space := text.rfind(" ", 1, space)) > 0 and text[space - 1].isspace():
        pass
    line = max((match.end() for match in _LONE_LINE_BREAK.finditer(text, max(0, space))), default=0)
    return max(space, line, 0)
