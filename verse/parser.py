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


def token_at(text: str, position: int) -> tuple[str, int]:
    """Returns the word (as in the lexicon), the punctuation or "/" (for a line break) that `text`
    continues with at `position`, and where it ends; "" where there is none.
    """
    match = _TOKEN.match(text, position)
    if match is None:
        return "", position
    token = match[1] or match[2].replace("\n", "/")
    if token not in LEXICON.class_of and position and text[position - 1] == "\n":
        token = token.lower()
    return token, match.end()


def token_keys(token: str) -> list[str]:
    """Returns the keys of options that stand for `token`: itself, its word class."""
    word_class = LEXICON.class_of.get(token)
    return [token, word_class.key, ANY_WORD] if word_class else [token]


class Reader:
    """Recognizes each choice in `text` from `position` on: the option that it continues with."""

    def __init__(self, text: str, position: int = 0) -> None:
        self._text = text
        self.bits: list[float] = []
        self.position = position

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
        token, _ = token_at(self._text, self.position)
        return [options.index[key] for key in token_keys(token) if key in options.index]

    def say(self, text: str) -> None:
        if not self._text.startswith(text, self.position):
            self.refuse(repr(text))
        self.position += len(text)

    def refuse(self, expected: str) -> None:
        line = self._text.count("\n", 0, self.position) + 1
        here = self._text[self.position : self.position + 20]
        raise NotVerse(f"line {line}: {here!r} where the grammar expects {expected}")
