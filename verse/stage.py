"""What a line of a play does on stage: who speaks, who enters and leaves, whom one talks to.

For texts of any quality: nothing is refused. Not here: whether that is possible (metrics.py).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from verse.lexicon import LEXICON

TITLE = re.compile(r"THE (?:TRAGEDY|COMEDY|HISTORY) OF [A-Z ]+")
_SPEAKER = re.compile(r"([A-Z][A-Z ]*):")
_MOVE = re.compile(r"(Enter|Exit) (.*)\.")
WORD = re.compile(r"'?[A-Za-z](?:['-]?[A-Za-z])*")
_DIRECTION = re.compile(r"\[.*|(?:Enter|Exit|Exeunt|SCENE|FINIS)\b.*|THE [A-Z]+ OF [A-Z ]+")

NAMES = {name.upper(): name for name in LEXICON.gender_of_name}


@dataclass
class Stage:
    """What is known after the lines read so far, right or wrong. Names are those of headings."""

    in_scene: bool = False  # the beginning of the scene was read, so that `cast` is complete
    cast: frozenset[str] = frozenset()
    speaker: str = ""  # who spoke last and has not left
    addressed: str = ""  # to whom the speaker talks
    symbol: str = "SENTENCE"  # of the grammar: what the speech consists of

    def read(self, line: str) -> None:
        if name := speaker_of(line):
            self.addressed, self.speaker, self.symbol = self.speaker, name, "SENTENCE"
        elif line.startswith("SCENE."):
            self.in_scene, self.cast, self.speaker, self.addressed = True, frozenset(), "", ""
        elif line.startswith("[To "):
            self.addressed = line[4:-1]
        elif line == "[Aside]":
            self.addressed = ""
        elif line == "[Coming forward]":
            self.addressed, self.symbol = "", "COUPLET"
        for move, name in moves_of(line):
            if move == "Enter":
                self.cast |= {name}
                continue
            self.cast -= {name}
            self.speaker = "" if self.speaker == name else self.speaker
            self.addressed = "" if self.addressed == name else self.addressed


def speaker_of(line: str) -> str:
    """Returns the name of a heading, "" if the line is none."""
    match = _SPEAKER.fullmatch(line)
    return match[1] if match else ""


def moves_of(line: str) -> Iterator[tuple[str, str]]:
    """Yields ("Enter" or "Exit", name) for each name of a stage direction."""
    if match := _MOVE.fullmatch(line):
        for name in re.split(", | and ", match[2]):
            yield match[1], name


def is_spoken(line: str) -> bool:
    """Whether an actor says the line."""
    return bool(line) and not (speaker_of(line) or _DIRECTION.fullmatch(line))


def words_of(line: str) -> list[str]:
    return WORD.findall(line)
