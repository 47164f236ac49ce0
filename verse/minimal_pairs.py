"""Pairs of a line that keeps a rule of metrics.RULES and one that breaks it by a single word.

Which of the two a model finds more likely shows what it knows, without sampling. The lines come
from plays of a seed that no corpus has, so no model was trained on them. Not here: the verdict of
a model (gpt/evaluation/minimal_pairs.py).
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from typing import NamedTuple

from verse.lexicon import LEXICON
from verse.metrics import known_form, rhyme, scans, sentence_context, verb_family, verb_forms
from verse.play import class_words, write_play
from verse.stage import NAMES, WORD, Stage, is_spoken, moves_of, speaker_of, words_of

PLAY_SEED = -1  # data.seed is at least 0
PER_PLAY = 4  # pairs of a rule at most, so that they come from many plays

Pick = Callable[[Sequence[str]], str]  # one of several strings, all equally likely


class MinimalPair(NamedTuple):
    """After `context`, `right` keeps the rule; `wrong`, with another word, does not."""

    rule: str
    context: str
    right: str
    wrong: str


class _Line(NamedTuple):
    """A line of a play and what comes before it: on stage, in its play, in its speech."""

    text: str
    stage: Stage
    play: str
    speech: list[str]  # the lines of the speech, heading and directions included


def minimal_pairs(plays: int) -> list[MinimalPair]:
    """Returns up to PER_PLAY pairs of every rule but `sentences` from each of `plays` plays.

    The context of a spoken line is its speech, that of other lines all of the play before them.
    """
    return [pair for index in range(plays) for pair in _of_play(index)]


def _of_play(index: int) -> Iterator[MinimalPair]:
    random_numbers = _random_numbers(index)

    def pick(items: Sequence[str]) -> str:
        return items[next(random_numbers) % len(items)]

    lines = list(_lines(write_play(PLAY_SEED, index).text))
    for rule, wrong_line in _WRONG_LINES.items():
        shuffled = sorted(lines, key=lambda _: next(random_numbers))
        wrong_lines = ((line, wrong_line(line, pick)) for line in shuffled)
        for line, wrong in islice(((a, b) for a, b in wrong_lines if b), PER_PLAY):
            context = "".join(line.speech) if is_spoken(line.text) else line.play
            yield MinimalPair(rule, context, line.text + "\n", wrong + "\n")


def _random_numbers(index: int) -> Iterator[int]:
    for counter in count():
        digest = hashlib.blake2b(f"verse pairs {index}:{counter}".encode(), digest_size=8)
        yield int.from_bytes(digest.digest(), "little")


def _lines(play: str) -> Iterator[_Line]:
    stage, start = Stage(), 0
    speech: list[str] = []
    for text in play.splitlines():
        if speaker_of(text):
            speech = []
        yield _Line(text, replace(stage), play[:start], list(speech))
        stage.read(text)
        speech.append(text + "\n")
        start += len(text) + 1


# --- a wrong line for a right one, by rule; "" where the rule does not apply to it ----------------


def _absent_speaker(line: _Line, pick: Pick) -> str:
    absent = [name for name in NAMES if name not in line.stage.cast]
    return pick(absent) + ":" if speaker_of(line.text) else ""


def _same_speaker(line: _Line, pick: Pick) -> str:
    last = line.stage.speaker
    return last + ":" if last and speaker_of(line.text) else ""


def _impossible_move(line: _Line, pick: Pick) -> str:
    moves = list(moves_of(line.text))
    if not moves:
        return ""
    (move, name), before = moves[-1], [name for _, name in moves[:-1]]
    present = [*sorted(line.stage.cast), *before]
    absent = [name for name in NAMES if name not in present]
    replacement = pick(present if move == "Enter" else absent)
    return f"{line.text.removesuffix(name + '.')}{replacement}."


def _misspelled(line: _Line, pick: Pick) -> str:
    def swapped(word: str) -> str:
        return word[0] + word[2] + word[1] + word[3:]

    words = [w for w in _spoken_words(line) if len(w) > 3 and not known_form(swapped(w))]
    return _with(line, word := pick(words), swapped(word)) if words else ""


def _wrong_length(line: _Line, pick: Pick) -> str:
    """Another word of the same category with another stress pattern."""
    lines = []
    for word in _spoken_words(line):
        known = LEXICON.class_of[known_form(word)]
        for word_class in LEXICON.classes.values():
            same = (word_class.category, word_class.vowel) == (known.category, known.vowel)
            if same and word_class.pattern != known.pattern:
                lines.append(_with(line, word, pick(word_class.words)))
    lines = [text for text in lines if not scans(words_of(text))]
    return pick(lines) if lines else ""


def _wrong_form(line: _Line, pick: Pick) -> str:
    """Another form of an auxiliary verb, which has one syllable as well."""
    if not _spoken_words(line):
        return ""
    spoken = [text.strip() for text in line.speech if is_spoken(text.strip())]
    ends = [i + 1 for i, text in enumerate(spoken) if text[-1] in ".!?"]
    start = ends[-1] if ends and line.stage.symbol == "SENTENCE" else 0
    context = sentence_context(line.stage.addressed, spoken[:start])

    def is_wrong(text: str) -> bool:
        sentence = "\n".join(["", *spoken[start:], text, ""])
        return not all(verb_forms(sentence, line.stage.symbol, context))

    lines = [
        text
        for word in _spoken_words(line)
        for form in sorted(verb_family([known_form(word)]))
        if form[0] != "<" and is_wrong(text := _with(line, word, form))
    ]
    return pick(lines) if lines else ""


def _no_rhyme(line: _Line, pick: Pick) -> str:
    """Another noun at the end of a couplet, in the metre."""
    first = line.speech[-1] if line.speech else ""
    if line.stage.symbol != "COUPLET" or not is_spoken(first.strip()) or not is_spoken(line.text):
        return ""
    last = words_of(line.text)[-1]
    others = [word for word in class_words("<NR|s|c>", "").keys if not rhyme(first, word)]
    return _with(line, last, pick([w for w in others if w not in (last, words_of(first)[-1])]))


def _spoken_words(line: _Line) -> list[str]:
    return words_of(line.text) if is_spoken(line.text) else []


def _with(line: _Line, word: str, replacement: str) -> str:
    """Returns the line with `replacement` in place of the last `word`."""
    if word[0].isupper() and word != "I":
        replacement = replacement.capitalize()
    match = [match for match in WORD.finditer(line.text) if match[0] == word][-1]
    return line.text[: match.start()] + replacement + line.text[match.end() :]


_WRONG_LINES: dict[str, Callable[[_Line, Pick], str]] = {
    "speakers": _absent_speaker,
    "turns": _same_speaker,
    "entrances": _impossible_move,
    "words": _misspelled,
    "metre": _wrong_length,
    "agreement": _wrong_form,
    "rhyme": _no_rhyme,
}
