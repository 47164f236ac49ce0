"""Writing a play: title, scenes, speeches, a couplet; every choice is sampled and its bits counted.

The grammar of a play is written once, as code that asks a chooser. A `Writer` samples from
counter-based random bits and keeps the text; parser.py's `Reader` is given the text and recognizes
the option that it continues with. Both add log2(total / weight), so -log2 P(this very text) is
known when writing and obtained again from the text alone, and the two cannot drift apart.

    play = write_play(seed=0, index=0)
    parser.information_bits(play.text) == play.information_bits
"""

import hashlib
import math
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
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

    def end(self) -> None:
        """Ends the text."""


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

    def end(self) -> None:
        """Nothing to check: the text ends where the grammar does."""


@cache
def compiled_grammar() -> Grammar:
    return Grammar(GRAMMAR, LINES)


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
def _literal(keys: tuple[str, ...], weights: tuple[int, ...]) -> Options:
    return Options(keys, weights, literal=True)


@cache
def _tokens(keys: tuple[str, ...], weights: tuple[int, ...]) -> Options:
    return Options(keys, weights)


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

    def _pick(self, keys: Sequence[str], weights: Sequence[int]) -> str:
        key = keys[self.chooser.choose(_literal(tuple(keys), tuple(weights)))]
        self.chooser.say(key)
        return key

    def _pick_name(self, names: Sequence[str], weights: Sequence[int] = ()) -> str:
        keys = [_NAMES[name] for name in names]
        key = self._pick(keys, weights or [1] * len(keys))
        return names[keys.index(key)]

    def play(self) -> None:
        """The title, then scenes until FINIS."""
        say = self.chooser.say
        say("THE ")
        self._pick(("TRAGEDY", "COMEDY", "HISTORY"), (3, 2, 1))
        say(" OF ")
        names = list(_NAMES)
        first = self._pick_name(names)
        say(" AND ")
        self._pick_name([name for name in names if name != first])
        say("\n\n")
        for scene in range(1, 1_000_000):
            # Three scenes at least; from the fourth on, each may be the one that is not played.
            if scene <= 3:
                say("SCENE. ")
            elif self._pick(("SCENE. ", "FINIS.\n"), _MORE_SCENES[min(scene, 6)]) != "SCENE. ":
                break
            self.scene()
        self.chooser.end()

    def scene(self) -> None:
        """A setting, which gives the topic, those who enter, speeches, a couplet."""
        say = self.chooser.say
        topic_of = {setting: topic for topic in TOPICS for setting in SETTINGS[topic].split("|")}
        self.topic = topic_of[self._pick(list(topic_of), [1] * len(topic_of))]
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
            name = self._pick_name(self.cast)
            self.cast.remove(name)
            if name == self.speaker:
                self.speaker = ""
            if name == self.addressed:
                self.addressed = ""
            say(".\n\n")
            return True
        if key == "[":
            sounds = SOUNDS[self.topic].split("|")
            self._pick(sounds, [1] * len(sounds))
            say("]\n\n")
            return True
        previous = self.speaker
        self.speaker = speakers[keys.index(key)]
        self.addressed = previous
        say("\n")
        return self.speech(speeches)

    def speech(self, speeches: int) -> bool:
        """What the speaker says; False if it was the couplet."""
        say = self.chooser.say
        symbol = "SENTENCE"
        marked = _tokens(("[", ANY_WORD), (3, 17) if speeches < 10 else (2, 3))
        if marked.keys[self.chooser.choose(marked)] == "[":
            say("[")
            listeners = [name for name in self.cast if name != self.speaker]
            kinds = ["Aside", *("To " + _NAMES[name] for name in listeners), "Coming forward"]
            close = 0 if speeches < 10 else 12 if speeches < 13 else 60
            weights = [4, *(4 for _ in listeners), close]
            kind = self._pick(kinds[: None if close else -1], weights[: None if close else -1])
            say("]\n")
            if kind == "Coming forward":
                symbol = "COUPLET"
            is_addressed = kind.startswith("To ")
            self.addressed = listeners[kinds.index(kind) - 1] if is_addressed else ""
        spoken_of = ""
        sentences = 0
        more = True
        while more:
            spoken_of = self.sentence(symbol, spoken_of)
            sentences += 1
            if symbol == "COUPLET":
                break
            ending = _tokens(("/", ANY_WORD), (2, 3) if sentences < 4 else (3, 1))
            more = ending.keys[self.chooser.choose(ending)] != "/"
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
            return _tokens((self.addressed,), (1,))
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
