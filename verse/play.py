"""Writing a play: title, scenes, speeches, a couplet; every choice is sampled and its bits counted.

The grammar of a play is written once, as code that asks a chooser. A `Writer` samples from
counter-based random bits and keeps the text; parser.py's `Reader` recognizes the option that a
given text continues with. So -log2 P(this very text), which is known when writing, is obtained
again from the text alone.
"""

import hashlib
import math
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Protocol

from verse.grammar import DONE, METRE_SYLLABLES, Context, Grammar, Options
from verse.lexicon import LEXICON
from verse.rules import GRAMMAR, LINES, PUNCTUATION, SETTINGS, SOUNDS
from verse.words import TOPICS

PLAY_BYTES = 10_000  # mean size of a play, as measured, to a few percent
REPEAT_WINDOW = 3_000  # characters between the starts of a line and of its earliest repetition
ANY_WORD = "<any word>"

# Weights of another scene and of the end, by the number of the scene.
_MORE_SCENES = {4: (1, 1), 5: (1, 2), 6: (1, 9)}
_NAMES = {name: name.upper() for name in LEXICON.gender_of_name}
_NAME_OF = {heading: name for name, heading in _NAMES.items()}


@dataclass(frozen=True)
class Play:
    """One play: its `text`, and -log2 of the probability that it is this one, in bits."""

    text: str
    information_bits: float


def write_play(seed: int, index: int) -> Play:
    """Writes play number `index` of `seed`, about PLAY_BYTES bytes of ASCII, with its information.

    It depends on (seed, index) alone; the plays of one seed are independent of each other.
    """
    writer = Writer(seed, index)
    PlayGrammar(writer).play()
    return Play("".join(writer.texts), math.fsum(writer.bits))


class Chooser(Protocol):
    """Decides between options; `position` is the number of characters so far."""

    position: int

    def choose(self, options: Options) -> int:
        """Returns the index of the option that the text continues with."""

    def say(self, text: str) -> None:
        """Continues with `text`, which leaves no choice."""


class Writer:
    """Samples each choice: option i has probability weight / total, but for a bias under 2^-64.

    The random bits are the 128-bit words of blake2b(seed, index, counter).
    """

    def __init__(self, seed: int, index: int) -> None:
        self._name = f"verse 1:{seed}:{index}:"
        self._counter = 0
        self._random_words: list[int] = []
        self.texts: list[str] = []
        self.bits: list[float] = []
        self.position = 0

    def choose(self, options: Options) -> int:
        if len(options.keys) == 1:
            return 0
        if not self._random_words:
            name = f"{self._name}{self._counter}".encode("ascii")
            digest = hashlib.blake2b(name, digest_size=64).digest()
            words = [int.from_bytes(digest[i : i + 16], "little") for i in (0, 16, 32, 48)]
            self._random_words = words
            self._counter += 1
        point = self._random_words.pop() * options.total >> 128
        chosen = bisect_right(options.cumulative, point)
        self.bits.append(options.bits[chosen])
        return chosen

    def say(self, text: str) -> None:
        self.texts.append(text)
        self.position += len(text)


@cache
def compiled_grammar(metre: bool = True) -> Grammar:
    return Grammar(GRAMMAR, LINES, metre)


@cache
def class_words(key: str, topic: str) -> Options:
    word_class = LEXICON.classes[key]
    return Options(word_class.words, word_class.weights(topic))


@cache
def _closing_words(first: str, topic: str) -> Options:
    """Returns the nouns of one syllable that rhyme with `first`, without itself."""
    rhymes = LEXICON.rhymes[LEXICON.rhyme_of[first]]
    closing = LEXICON.classes["<NR|s|c>"]
    weighted = zip(closing.words, closing.weights(topic), strict=True)
    offered = {word: weight for word, weight in weighted if word in rhymes and word != first}
    return Options(list(offered), list(offered.values()))


@cache
def _options(keys: tuple[str, ...], weights: tuple[int, ...], literal: bool = False) -> Options:
    return Options(keys, weights, literal=literal)


def without_words(options: Options, forbidden: Sequence[str]) -> Options:
    """Returns `options` without the `forbidden` words; all, if nothing else is left."""
    kept = [i for i, key in enumerate(options.keys) if key not in forbidden]
    return options.only(kept) if kept else options


def _capital(word: str) -> str:
    return "'" + word[1:].capitalize() if word[0] == "'" else word[0].upper() + word[1:]


class PlayGrammar:
    """One play, choice by choice; its whole state can be read off the text."""

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser
        self.topic = ""
        self.cast: list[str] = []
        self.speaker = ""
        self.addressed = ""
        self.recent: deque[tuple[int, str, str]] = deque()  # start, all but the last word, it
        self.recent_starts: Counter[str] = Counter()

    def _pick(self, keys: Sequence[str], weights: Sequence[int] = ()) -> str:
        options = _options(tuple(keys), tuple(weights or [1] * len(keys)), literal=True)
        key = keys[self.chooser.choose(options)]
        self.chooser.say(key)
        return key

    def _pick_name(self, names: Sequence[str]) -> str:
        return _NAME_OF[self._pick([_NAMES[name] for name in names])]

    def play(self) -> None:
        """The title, then scenes until FINIS."""
        say = self.chooser.say
        say("THE ")
        self._pick(("TRAGEDY", "COMEDY", "HISTORY"), (3, 2, 1))
        say(" OF ")
        first = self._pick_name(list(_NAMES))
        say(" AND ")
        self._pick_name([name for name in _NAMES if name != first])
        say("\n\n")
        for scene in count(1):
            # Three scenes at least; from the fourth on, each may be the one that is not played.
            if scene <= 3:
                say("SCENE. ")
            elif self._pick(("SCENE. ", "FINIS.\n"), _MORE_SCENES[min(scene, 6)]) != "SCENE. ":
                break
            self.scene()

    def scene(self) -> None:
        """A setting, which gives the topic, those who enter, speeches, a couplet."""
        say = self.chooser.say
        topic_of = {setting: topic for topic in TOPICS for setting in SETTINGS[topic].split("|")}
        self.topic = topic_of[self._pick(list(topic_of))]
        say("\n\nEnter ")
        self.cast, self.speaker, self.addressed = [], "", ""
        joined = ""
        while True:
            self.cast.append(self._pick_name([n for n in _NAMES if n not in self.cast]))
            if joined == " and ":
                say(".")
                break
            joined = self._pick((", ", " and "), (2, 3) if len(self.cast) < 4 else (1, 9))
        say("\n\n")
        speeches = 0
        while self.event(speeches):
            speeches += 1
        say("[Exeunt.]\n\n")

    def event(self, speeches: int) -> bool:
        """Someone enters or leaves, a sound, or a speech; False after the couplet."""
        say = self.chooser.say
        speakers = [name for name in self.cast if name != self.speaker]
        keys = [_NAMES[name] + ":" for name in speakers]
        weights = [40 if name == self.addressed else 20 for name in speakers]
        total = sum(weights)
        actions = {
            "Enter ": total // 24 * (speeches > 0 and len(self.cast) < 5),
            "Exit ": total // 24 * (speeches > 1 and len(self.cast) > 2),
            "[": total // 16 * (speeches > 0),
        }
        for action, weight in actions.items():
            if weight:
                keys.append(action)
                weights.append(weight)
        key = self._pick(keys, weights)
        if key == "Enter ":
            self.cast.append(self._pick_name([n for n in _NAMES if n not in self.cast]))
            say(".\n\n")
            return True
        if key == "Exit ":
            leaver = self._pick_name(self.cast)
            self.cast.remove(leaver)
            self.speaker = "" if self.speaker == leaver else self.speaker
            self.addressed = "" if self.addressed == leaver else self.addressed
            say(".\n\n")
            return True
        if key == "[":
            self._pick(SOUNDS[self.topic].split("|"))
            say("]\n\n")
            return True
        self.addressed, self.speaker = self.speaker, speakers[keys.index(key)]
        say("\n")
        return self.speech(speeches)

    def speech(self, speeches: int) -> bool:
        """What the speaker says; False if it was the couplet."""
        say = self.chooser.say
        symbol = "SENTENCE"
        marked = _options(("[", ANY_WORD), (3, 17) if speeches < 10 else (2, 3))
        if marked.keys[self.chooser.choose(marked)] == "[":
            say("[")
            listeners = [name for name in self.cast if name != self.speaker]
            kinds = ["Aside", *("To " + _NAMES[name] for name in listeners), "Coming forward"]
            weights = [4] * (len(kinds) - 1) + [12 if speeches < 13 else 60]
            offered = len(kinds) - (speeches < 10)
            kind = self._pick(kinds[:offered], weights[:offered])
            say("]\n")
            if kind == "Coming forward":
                symbol = "COUPLET"
            is_addressed = kind.startswith("To ")
            self.addressed = listeners[kinds.index(kind) - 1] if is_addressed else ""
        spoken_of = ""
        for sentences in count(1):
            spoken_of = self.sentence(symbol, spoken_of)
            if symbol == "COUPLET":
                break
            ending = _options(("/", ANY_WORD), (2, 3) if sentences < 4 else (3, 1))
            if ending.keys[self.chooser.choose(ending)] == "/":
                break
        say("\n")
        return symbol != "COUPLET"

    def sentence(self, symbol: str, spoken_of: str) -> str:
        """One sentence of one to three lines; returns the gender of the one last spoken of."""
        grammar, chooser = compiled_grammar(), self.chooser
        state = grammar.start(symbol)
        gender = LEXICON.gender_of_name.get(self.addressed, "")
        pattern = LEXICON.class_of[self.addressed].pattern if gender else ""
        context = Context(spoken_of, gender, pattern)
        position, line, start, rhyme = 0, "", chooser.position, ""
        mentioned = spoken_of
        while state != DONE:
            options = grammar.options(state, position, context)
            forbidden = self.repeating_words(line, start) if line else ()
            if forbidden:
                options = self._without_repetition(options, forbidden, rhyme)
            chosen = chooser.choose(options)
            key = options.keys[chosen]
            state, position = grammar.after(options, chosen)
            if key == "/":
                before, _, last = line.rpartition(" ")
                self.recent.append((start, before, last))
                self.recent_starts[before] += 1
                if symbol == "COUPLET":
                    rhyme = last
                chooser.say("\n")
                line, start = "", chooser.position
                context = Context(mentioned, gender, pattern)
                continue
            if key in PUNCTUATION:
                chooser.say(key)
                continue
            word = key
            if key[0] == "<":
                word = self._word(key, position, rhyme, forbidden)
                if key[1:4] in ("HM|", "HF|"):
                    mentioned = key[2].lower()
            chooser.say(" " + word if line else _capital(word))
            line = f"{line} {word}" if line else word
        return mentioned

    def _offered(self, key: str, rhyme: str) -> Options:
        """Returns the words of class `key` that may be here; `rhyme` must be rhymed with if any."""
        if key.startswith("<NAME|"):
            return _options((self.addressed,), (1,))
        return _closing_words(rhyme, self.topic) if rhyme else class_words(key, self.topic)

    def _word(self, key: str, position: int, rhyme: str, forbidden: Sequence[str]) -> str:
        ends = position == METRE_SYLLABLES
        options = self._offered(key, rhyme if ends else "")
        if forbidden and ends:
            options = without_words(options, forbidden)
        return options.keys[self.chooser.choose(options)]

    def repeating_words(self, line: str, start: int) -> Sequence[str]:
        """Returns the words with which `line`, begun at `start`, repeats one in the window."""
        while self.recent and self.recent[0][0] < start - REPEAT_WINDOW:
            self.recent_starts[self.recent.popleft()[1]] -= 1
        if not self.recent_starts[line]:
            return ()
        return [last for _, before, last in self.recent if before == line]

    def _without_repetition(
        self, options: Options, forbidden: Sequence[str], rhyme: str
    ) -> Options:
        """Returns `options` without those that can only repeat a line; all, if none is left."""
        kept = []
        for i, key in enumerate(options.keys):
            ends = options.then[i][1] == METRE_SYLLABLES
            words: Sequence[str] = [key]
            if key[0] == "<":
                words = self._offered(key, rhyme if ends else "").keys
            if not ends or any(word not in forbidden for word in words):
                kept.append(i)
        return options.only(kept) if kept else options
