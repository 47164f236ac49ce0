"""The lexicon: every word form in exactly one class, so that a reader knows the class by the word.

A class is a category (singular noun, plural noun, transitive verb in the third person, ...), a
stress pattern, and whether the word starts with a vowel sound (for "a" and "an"). A form that two
categories claim ("hopes") goes to the first. How classes make lines: grammar.py.
"""

from collections.abc import Iterator

from verse.morphology import (
    IRREGULAR,
    SIBILANTS,
    longer,
    starts_with_vowel_sound,
    with_ed,
    with_er,
    with_ing,
    with_ly,
    with_s,
)
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

    __slots__ = ("_base", "category", "key", "pattern", "topics", "vowel", "weight", "words")

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


class Lexicon:
    """All word classes; `class_of` maps a form to its class, `rhyme_of` to its rhyme's index."""

    def __init__(self) -> None:
        self.classes: dict[str, WordClass] = {}
        self.class_of: dict[str, WordClass] = {}
        self.rhyme_of: dict[str, int] = {}
        self.rhymes: list[list[str]] = []
        self.gender_of_name: dict[str, str] = {}
        self._fill()

    def _add(self, word: str, category: str, pattern: str, topic: str = "-", rank: int = 0) -> None:
        if word in self.class_of:
            return
        vowel = starts_with_vowel_sound(word)
        key = f"<{category}|{pattern}|{'v' if vowel else 'c'}>"
        if key not in self.classes:
            self.classes[key] = WordClass(key, category, pattern, vowel)
        self.classes[key].add(word, topic, rank)
        self.class_of[word] = self.classes[key]

    def _fill(self) -> None:
        for pattern, words in _word_lists(FUNCTION_WORDS):
            for word in words:
                self._add(word.upper() if word in ("i", "o") else word, f"={word}", pattern)
        for category, text in TITLES.items():
            for pattern, words in _word_lists(text):
                for rank, word in enumerate(words):
                    self._add(word, category, pattern, rank=rank)
        for gender, text in (("m", MALE_NAMES), ("f", FEMALE_NAMES)):
            for pattern, words in _word_lists(text):
                for word in words:
                    self._add(word, "NAME", pattern)
                    self.gender_of_name[word] = gender
        bases = self._rhyming_bases()
        for head, words in _word_lists(WORDS_BY_TOPIC):
            topic, category, pattern = head.split()
            bases += [(word, category, pattern, topic, rank) for rank, word in enumerate(words)]
        kept = []
        claimed: set[tuple[str, str]] = set()
        for base in bases:
            word, category, pattern, topic, rank = base
            own = "A" if category == "AL" else category.rstrip("=")
            known = word in self.class_of
            self._add(word, own + "0" if own in ("VT", "VI") else own, pattern, topic, rank)
            # A verb whose base form is a noun ("charge") still has its other forms.
            if not known or (own in ("VT", "VI") and (word, own[0]) not in claimed):
                kept.append(base)
                claimed.add((word, own[0]))
        for kind in ("N", "V", "A"):
            for base in kept:
                if base[1][0] == kind or (kind == "N" and base[1][0] == "H"):
                    self._inflect(*base)

    def _rhyming_bases(self) -> list[tuple[str, str, str, str, int]]:
        topic_of: dict[str, str] = {}
        for topic, words in _word_lists(RHYME_TOPICS):
            for word in words:
                topic_of.setdefault(word, topic)
        bases = []
        for number, line in enumerate(RHYMES.strip().splitlines()):
            self.rhymes.append([])
            category = ""
            rank = 0
            for item in line.split():
                if item in ("N", "A", "V"):
                    category, rank = item + "R", 0
                    continue
                word = item.rstrip("=^")
                if word in self.rhyme_of:
                    raise ValueError(f"{word} has two rhymes")
                self.rhyme_of[word] = number
                self.rhymes[-1].append(word)
                own = category + "=" if "=" in item else category
                bases.append(
                    (word, own, "ws" if "^" in item else "s", topic_of.get(word, "-"), rank)
                )
                rank += 1
        return bases

    def _inflect(self, base: str, category: str, pattern: str, topic: str, rank: int) -> None:
        kind = category.rstrip("=")
        if kind in ("N", "NR", "HM", "HF"):
            self._inflect_noun(base, "H" if kind[0] == "H" else "N", pattern, topic, rank)
        elif kind == "NA" and not base.endswith(SIBILANTS):
            self._add(base + "'s", "NQ", pattern, topic, rank)
        elif kind in ("VT", "VI", "VR"):
            self._inflect_verb(base, "VT" if kind == "VT" else "VI", pattern, topic, rank)
        elif kind in ("A", "AL", "AR"):
            if kind == "AL":
                self._add(*_with_category(with_ly(base, pattern), "AV"), topic, rank)
            comparable = pattern == "s" or (pattern == "sw" and base.endswith("y"))
            if comparable and not category.endswith("="):
                self._add(*_with_category(with_er(base, pattern, "er"), "AC"), topic, rank)
                self._add(*_with_category(with_er(base, pattern, "est"), "AE"), topic, rank)

    def _inflect_noun(self, base: str, kind: str, pattern: str, topic: str, rank: int) -> None:
        plural, stresses = with_s(base, pattern)
        if base in PLURALS:
            plural = PLURALS[base]
            stresses = longer(pattern) if base == "fish" else pattern
        if plural:
            self._add(plural, f"{kind}P", stresses, topic, rank)
        if kind == "H" and not base.endswith("s"):
            stresses = longer(pattern) if base.endswith(SIBILANTS) else pattern
            self._add(base + "'s", "HQ", stresses, topic, rank)

    def _inflect_verb(self, base: str, kind: str, pattern: str, topic: str, rank: int) -> None:
        self._add(*_with_category(with_s(base, pattern), f"{kind}S"), topic, rank)
        self._add(*_with_category(with_ing(base, pattern), f"{kind}G"), topic, rank)
        forms = IRREGULAR.get(base)
        if forms is None:
            self._add(*_with_category(with_ed(base, pattern), f"{kind}D"), topic, rank)
            return
        for form, tense in zip(forms, "D" if len(forms) == 1 else "PN", strict=True):
            is_longer = form == "wedded" or (form.endswith("en") and form != "seen")
            stresses = longer(pattern) if is_longer else pattern
            self._add(form, f"{kind}{tense}", stresses, topic, rank)


def _word_lists(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yields (head, words) of each line "head: words"."""
    for line in text.strip().splitlines():
        head, _, words = line.partition(": ")
        yield head, words.split()


def _with_category(form_and_pattern: tuple[str, str], category: str) -> tuple[str, str, str]:
    return form_and_pattern[0], category, form_and_pattern[1]


LEXICON = Lexicon()
WORDS = frozenset(LEXICON.class_of)
