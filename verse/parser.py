"""Reading a play back: every choice that was made, and so the information of the text.

The grammar is play.py's own code; here the chooser recognizes which option the text continues with.
"""

import math
import re

from verse.grammar import Options
from verse.lexicon import LEXICON
from verse.play import ANY_WORD, PlayGrammar

_TOKEN = re.compile(r" ?('?[A-Za-z](?:['-]?[A-Za-z])*)|([^A-Za-z ])")


class NotVerse(ValueError):
    """A text that the grammar cannot have written: the line, the text there, and what could be."""


def information_bits(text: str) -> float:
    """Returns -log2 of the probability of the one play in `text`, in bits, from the text alone.

    Raises NotVerse if `write_play` cannot have written it.
    """
    reader = Reader(text)
    PlayGrammar(reader).play()
    if reader.position != len(text):
        reader.refuse("the end")
    return math.fsum(reader.bits)


class Reader:
    """Recognizes each choice in `text`: the one option that the text continues with."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.bits: list[float] = []
        self.position = 0

    def choose(self, options: Options) -> int:
        matches = self._match_literal(options) if options.literal else self._match_token(options)
        if not matches:
            expected = ", ".join(repr(key) for key in options.keys[:8])
            self.refuse(expected + (", ..." if len(options.keys) > 8 else ""))
        if len(matches) > 1:
            raise AssertionError(f"can be read as {[options.keys[i] for i in matches]}")
        self.bits.append(options.bits[matches[0]])
        return matches[0]

    def _match_literal(self, options: Options) -> list[int]:
        text, position = self._text, self.position
        return [
            i
            for i, key in enumerate(options.keys)
            if text.startswith(key, position)
            and not (key[-1].isalpha() and text[position + len(key) :][:1].isalpha())
        ]

    def _match_token(self, options: Options) -> list[int]:
        match = _TOKEN.match(self._text, self.position)
        if match is None:
            return []
        token = match[1] or match[2].replace("\n", "/")
        class_of = LEXICON.class_of
        if token not in class_of and self.position and self._text[self.position - 1] == "\n":
            token = token.lower()
        index = options.index
        keys = [token, class_of[token].key, ANY_WORD] if token in class_of else [token]
        return [index[key] for key in keys if key in index]

    def say(self, text: str) -> None:
        if not self._text.startswith(text, self.position):
            self.refuse(repr(text))
        self.position += len(text)

    def refuse(self, expected: str) -> None:
        line = self._text.count("\n", 0, self.position) + 1
        here = self._text[self.position : self.position + 20]
        raise NotVerse(f"line {line}: {here!r} where the grammar expects {expected}")
