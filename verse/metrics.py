"""How much of a text that a model wrote is verse: known words, metre, rhyme."""

import re
from dataclasses import dataclass

from verse.grammar import METRE_SYLLABLES
from verse.lexicon import LEXICON, WORDS

_SPEAKER = re.compile(r"[A-Z][A-Z ]*:")
_HEADING = re.compile(r"\[.*|(?:Enter|Exit|Exeunt|SCENE|FINIS)\b.*|THE [A-Z]+ OF [A-Z ]+")
_COUPLET_MARK = "[Coming forward]"
_WORD = re.compile(r"'?[A-Za-z](?:['-]?[A-Za-z])*")


@dataclass(frozen=True)
class VerseScores:
    """How much of a text is verse; fractions are in [0, 1], None if there is nothing to count.

    `known_words`: fraction of the `words` in spoken lines that are in the lexicon.
    `metrical_lines`: fraction of the `lines` within one syllable of the metre.
    `rhymed_couplets`: fraction of the `couplets`, which "[Coming forward]" marks, that rhyme.
    """

    words: int
    known_words: float | None
    lines: int
    metrical_lines: float | None
    couplets: int
    rhymed_couplets: float | None


def assess(text: str) -> VerseScores:
    """Scores `text`, cut anywhere and of any quality.

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
    count = sum(spoken)
    return VerseScores(
        words=words,
        known_words=known / words if words else None,
        lines=count,
        metrical_lines=metrical / count if count else None,
        couplets=couplets,
        rhymed_couplets=rhymed / couplets if couplets else None,
    )


def pooled_metrics(scores: list[VerseScores]) -> dict[str, int | float | None]:
    """The counts and fractions of all texts as one, rounded; None if there is nothing to count."""

    def pooled(fraction: str, count: str) -> float | None:
        pairs = [(getattr(score, fraction), getattr(score, count)) for score in scores]
        known = [(value, weight) for value, weight in pairs if value is not None]
        total = sum(weight for _, weight in known)
        return round(sum(v * w for v, w in known) / total, 6) if total else None

    return {
        "words": sum(score.words for score in scores),
        "known_words": pooled("known_words", "words"),
        "lines": sum(score.lines for score in scores),
        "metrical_lines": pooled("metrical_lines", "lines"),
        "couplets": sum(score.couplets for score in scores),
        "rhymed_couplets": pooled("rhymed_couplets", "couplets"),
    }


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
