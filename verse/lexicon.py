"""The lexicon: every word form in exactly one class, so that a reader knows the class by the word.

A class is a category (singular noun, plural noun, transitive verb in the third person, ...), a
stress pattern, and whether the word starts with a vowel sound (for "a" and "an"). A form that two
categories claim ("hopes") goes to the first. How classes make lines: grammar.py.
"""

from collections.abc import Iterator
from typing import NamedTuple

from verse import morphology as inflection
from verse.morphology import IRREGULAR, SIBILANTS, longer
from verse.words import (
    FEMALE_NAMES,
    FUNCTION_WORDS,
    MALE_NAMES,
    PLURALS,
    RHYME_TOPICS,
    RHYMES,
    TITLES,
    TOPIC_BOOST,
    WORDS_BY_TOPIC,
)


class WordClass:
    """The words of one category, stress pattern and kind of first sound.

    `key` names it ("<N|sw|c>"); `weights(topic)` are the integer weights of `words`.
    """

    def __init__(self, key: str, category: str, pattern: str, vowel: bool) -> None:
        self.key, self.category, self.pattern, self.vowel = key, category, pattern, vowel
        self.words: list[str] = []
        self.topics: list[str] = []
        self._base: list[int] = []
        self.weight = 0

    def add(self, word: str, topic: str, rank: int) -> None:
        """Adds a word, the `rank`-th (from 0) of its list, with weight 240 / (rank + 4).

        Words of three syllables and more get a third of that.
        """
        weight = -(-240 // ((rank + 4) * (3 if len(self.pattern) > 2 else 1)))
        self.words.append(word)
        self.topics.append(topic)
        self._base.append(weight)
        self.weight += weight

    def weights(self, topic: str) -> list[int]:
        """Returns the weights of `words` in a scene of `topic`."""
        return [
            w * TOPIC_BOOST if t == topic else w
            for w, t in zip(self._base, self.topics, strict=True)
        ]


class BaseWord(NamedTuple):
    """A word of words.py; `rank` is its index in its list, which has the frequent words first."""

    word: str
    category: str
    pattern: str
    topic: str = "-"
    rank: int = 0


class Lexicon:
    """All word classes; `class_of` maps a form to its class, `rhyme_of` to its rhyme's index."""

    def __init__(self) -> None:
        self.classes: dict[str, WordClass] = {}
        self.class_of: dict[str, WordClass] = {}
        self.rhyme_of: dict[str, int] = {}
        self.rhymes: list[list[str]] = []
        self.gender_of_name: dict[str, str] = {}
        self._add_closed_classes()
        self._add_open_classes()

    def _add(self, base: BaseWord) -> None:
        word, category, pattern, topic, rank = base
        if word in self.class_of:
            return
        vowel = inflection.starts_with_vowel_sound(word)
        key = f"<{category}|{pattern}|{'v' if vowel else 'c'}>"
        if key not in self.classes:
            self.classes[key] = WordClass(key, category, pattern, vowel)
        self.classes[key].add(word, topic, rank)
        self.class_of[word] = self.classes[key]

    def _add_form(self, base: BaseWord, category: str, form: tuple[str, str]) -> None:
        """Adds an inflected form, (word, pattern), with the topic and rank of its base."""
        self._add(base._replace(category=category, word=form[0], pattern=form[1]))

    def _add_closed_classes(self) -> None:
        for pattern, words in _word_lists(FUNCTION_WORDS):
            for word in words:
                written = word.upper() if word in ("i", "o") else word
                self._add(BaseWord(written, f"={word}", pattern))
        for category, text in TITLES.items():
            for pattern, words in _word_lists(text):
                for rank, word in enumerate(words):
                    self._add(BaseWord(word, category, pattern, rank=rank))
        for gender, text in (("m", MALE_NAMES), ("f", FEMALE_NAMES)):
            for pattern, words in _word_lists(text):
                for word in words:
                    self._add(BaseWord(word, "NAME", pattern))
                    self.gender_of_name[word] = gender

    def _add_open_classes(self) -> None:
        bases = self._rhyming_words()
        for head, words in _word_lists(WORDS_BY_TOPIC):
            topic, category, pattern = head.split()
            for rank, word in enumerate(words):
                bases.append(BaseWord(word, category, pattern, topic, rank))
        inflected = []
        claimed: set[tuple[str, str]] = set()
        for base in bases:
            category = "A" if base.category == "AL" else base.category.rstrip("=")
            is_verb = category in ("VT", "VI")
            known = base.word in self.class_of
            self._add(base._replace(category=category + "0" if is_verb else category))
            # A verb whose base form is a noun ("charge") still has its other forms.
            if not known or (is_verb and (base.word, category[0]) not in claimed):
                inflected.append(base)
                claimed.add((base.word, category[0]))
        for kinds in ("NH", "V", "A"):
            for base in inflected:
                if base.category[0] in kinds:
                    self._inflect(base)

    def _rhyming_words(self) -> list[BaseWord]:
        topic_of: dict[str, str] = {}
        for topic, words in _word_lists(RHYME_TOPICS):
            for word in words:
                topic_of.setdefault(word, topic)
        bases = []
        for number, line in enumerate(RHYMES.strip().splitlines()):
            self.rhymes.append([])
            category, rank = "", 0
            for item in line.split():
                if item in ("N", "A", "V"):
                    category, rank = item + "R", 0
                    continue
                word = item.rstrip("=^")
                assert word not in self.rhyme_of, f"{word} has two rhymes"
                self.rhyme_of[word] = number
                self.rhymes[-1].append(word)
                marked = category + "=" if "=" in item else category
                pattern = "ws" if "^" in item else "s"
                bases.append(BaseWord(word, marked, pattern, topic_of.get(word, "-"), rank))
                rank += 1
        return bases

    def _inflect(self, base: BaseWord) -> None:
        word, category, pattern = base.word, base.category.rstrip("="), base.pattern
        if category in ("N", "NR", "HM", "HF"):
            self._inflect_noun(base, category[0])
        elif category == "NA" and not word.endswith(SIBILANTS):
            self._add_form(base, "NQ", (word + "'s", pattern))
        elif category in ("VT", "VI", "VR"):
            self._inflect_verb(base, "VT" if category == "VT" else "VI")
        elif category in ("A", "AL", "AR"):
            if category == "AL":
                self._add_form(base, "AV", inflection.with_ly(word, pattern))
            comparable = pattern == "s" or (pattern == "sw" and word.endswith("y"))
            if comparable and not base.category.endswith("="):
                self._add_form(base, "AC", inflection.with_er(word, pattern, "er"))
                self._add_form(base, "AE", inflection.with_er(word, pattern, "est"))

    def _inflect_noun(self, base: BaseWord, kind: str) -> None:
        word, pattern = base.word, base.pattern
        plural = inflection.with_s(word, pattern)
        if word in PLURALS:
            plural = PLURALS[word], longer(pattern) if word == "fish" else pattern
        if plural[0]:
            self._add_form(base, f"{kind}P", plural)
        if kind == "H" and not word.endswith("s"):
            stresses = longer(pattern) if word.endswith(SIBILANTS) else pattern
            self._add_form(base, "HQ", (word + "'s", stresses))

    def _inflect_verb(self, base: BaseWord, kind: str) -> None:
        word, pattern = base.word, base.pattern
        self._add_form(base, f"{kind}S", inflection.with_s(word, pattern))
        self._add_form(base, f"{kind}G", inflection.with_ing(word, pattern))
        forms = IRREGULAR.get(word)
        if forms is None:
            self._add_form(base, f"{kind}D", inflection.with_ed(word, pattern))
            return
        for form, tense in zip(forms, "D" if len(forms) == 1 else "PN", strict=True):
            is_longer = form == "wedded" or (form.endswith("en") and form != "seen")
            stresses = longer(pattern) if is_longer else pattern
            self._add_form(base, f"{kind}{tense}", (form, stresses))


def _word_lists(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yields (head, words) of each line "head: words"."""
    for line in text.strip().splitlines():
        head, _, words = line.partition(": ")
        yield head, words.split()


LEXICON = Lexicon()
WORDS = frozenset(LEXICON.class_of)
