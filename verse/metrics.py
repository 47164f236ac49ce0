"""How much of a text that a model wrote is verse: known words, metre, rhyme."""

import re
from typing import NamedTuple

from verse.grammar import METRE_SYLLABLES
from verse.lexicon import LEXICON, WORDS

_SPEAKER = re.compile(r"[A-Z][A-Z ]*:")
_HEADING = re.compile(r"\[.*|(?:Enter|Exit|Exeunt|SCENE|FINIS)\b.*|THE [A-Z]+ OF [A-Z ]+")
_COUPLET_MARK = "[Coming forward]"
_WORD = re.compile(r"'?[A-Za-z](?:['-]?[A-Za-z])*")


class VerseCounts(NamedTuple):
    """What `assess` counts in a text.

    `words` of spoken lines, and those in the lexicon; spoken `lines`, and those within one syllable
    of the metre; `couplets`, which "[Coming forward]" marks, and those that rhyme.
    """

    words: int = 0
    known_words: int = 0
    lines: int = 0
    metrical_lines: int = 0
    couplets: int = 0
    rhymed_couplets: int = 0


def assess(text: str) -> VerseCounts:
    """Counts in `text`, cut anywhere and of any quality, what is verse.

    The first and the last line may be cut and are left out. The syllables of a word that is not in
    the lexicon are estimated from its groups of vowels.
    """
    lines = text.split("\n")[1:-1]
    spoken = [
        bool(line) and not (_SPEAKER.fullmatch(line) or _HEADING.fullmatch(line)) for line in lines
    ]
    words = known = metrical = couplets = rhymed = 0
    for i, line in enumerate(lines):
        if spoken[i]:
            line_words = _WORD.findall(line)
            words += len(line_words)
            known += sum(bool(known_form(word)) for word in line_words)
            metrical += abs(sum(map(count_syllables, line_words)) - METRE_SYLLABLES) <= 1
        elif line == _COUPLET_MARK and all(spoken[i + 1 : i + 3]) and i + 2 < len(lines):
            couplets += 1
            rhymed += _rhyme(lines[i + 1], lines[i + 2])
    return VerseCounts(words, known, sum(spoken), metrical, couplets, rhymed)


def pooled_metrics(counts: list[VerseCounts]) -> dict[str, int | float | None]:
    """Totals of several texts, and the fractions of these totals; None if there is none."""
    total = VerseCounts(*map(sum, zip(*counts, strict=True)))
    metrics: dict[str, int | float | None] = {}
    for counted, verse in (
        ("words", "known_words"),
        ("lines", "metrical_lines"),
        ("couplets", "rhymed_couplets"),
    ):
        size = getattr(total, counted)
        fraction = round(getattr(total, verse) / size, 6) if size else None
        metrics |= {counted: size, verse: fraction}
    return metrics


def known_form(word: str) -> str:
    """Returns `word` as the lexicon has it, "" if it does not."""
    return word if word in WORDS else word.lower() if word.lower() in WORDS else ""


def count_syllables(word: str) -> int:
    """Counts syllables: the lexicon's, else groups of vowels without a silent e."""
    if known := known_form(word):
        return len(LEXICON.class_of[known].pattern)
    groups = len(re.findall(r"[aeiouy]+", word.lower()))
    silent = word.lower().endswith("e") and groups > 1
    return max(1, groups - silent)


def _rhyme(first: str, second: str) -> bool:
    endings = [_WORD.findall(line)[-1:] for line in (first, second)]
    a, b = (known_form(words[0]).lower() if words else "" for words in endings)
    rhymes = LEXICON.rhyme_of
    return a != b and a in rhymes and rhymes.get(b) == rhymes[a]
