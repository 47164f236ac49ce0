"""English inflection by rule: plurals, verb forms, comparison, adverbs, and their stress patterns.

Each function takes a base form and its stress pattern, and returns the inflected form and its
pattern. Irregular forms are data in words.py.
"""

import re

from verse.words import IRREGULAR_VERBS

# The past of a verb, and its participle if that is another word.
IRREGULAR = {
    entry.split()[0]: tuple(entry.split()[1:])
    for entry in IRREGULAR_VERBS.replace("\n", "/").split("/")
    if entry
}
_VOWEL_SOUND = re.compile(r"(?!(?:eu|uni(?!n)|usu|one))[aeiou]|hono|hones|heir")
_DOUBLED = re.compile(r"(?:^|[^aeiou])(?:qu)?[aeiouy][bdglmnprt]$")
_ALSO_DOUBLED = ("revel", "travel", "counsel", "worship")
SIBILANTS = ("s", "x", "z", "ch", "sh", "ce", "ge", "se", "ze")


def starts_with_vowel_sound(word: str) -> bool:
    return bool(_VOWEL_SOUND.match(word))


def longer(pattern: str) -> str:
    """Returns `pattern` with one more syllable, the stresses still alternating."""
    return pattern + ("w" if pattern[-1] == "s" else "s")


def _double(base: str, pattern: str) -> str:
    doubles = pattern[-1] == "s" and _DOUBLED.search(base)
    return base + base[-1] if doubles or base in _ALSO_DOUBLED else base


def with_s(base: str, pattern: str) -> tuple[str, str]:
    if base.endswith(SIBILANTS):
        return base + ("s" if base.endswith("e") else "es"), longer(pattern)
    if re.search(r"[^aeiou]y$", base):
        return base[:-1] + "ies", pattern
    return base + ("es" if base == "go" or base == "echo" else "s"), pattern


def with_ed(base: str, pattern: str) -> tuple[str, str]:
    stresses = longer(pattern) if re.search(r"[td]e?$", base) else pattern
    if base.endswith("e"):
        return base + "d", stresses
    if re.search(r"[^aeiou]y$", base):
        return base[:-1] + "ied", stresses
    return _double(base, pattern) + "ed", stresses


def with_ing(base: str, pattern: str) -> tuple[str, str]:
    if base.endswith("ie"):
        stem = base[:-2] + "y"
    elif base.endswith("e") and not base.endswith(("ee", "oe")):
        stem = base[:-1]
    else:
        stem = _double(base, pattern)
    return stem + "ing", longer(pattern)


def with_er(base: str, pattern: str, ending: str) -> tuple[str, str]:
    if base.endswith("e"):
        stem = base[:-1]
    elif re.search(r"[^aeiou]y$", base) and base not in ("shy", "sly", "dry"):
        stem = base[:-1] + "i"
    else:
        stem = _double(base, pattern)
    return stem + ending, longer(pattern)


def with_ly(base: str, pattern: str) -> tuple[str, str]:
    if base.endswith("le"):
        return base[:-1] + "y", pattern
    if base.endswith("ic"):
        return base + "ally", longer(pattern)
    if base == "true":
        return base[:-1] + "ly", longer(pattern)
    if base.endswith("y"):
        return base[:-1] + "ily", longer(pattern)
    return base + ("y" if base.endswith("ll") else "ly"), longer(pattern)
