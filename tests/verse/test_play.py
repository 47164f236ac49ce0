"""Plays: their text is pinned, their information exact, and their rules hold."""

import gzip
import hashlib
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from functools import cache

import pytest

from verse.grammar import DONE, NO_CONTEXT, Grammar, Options
from verse.lexicon import LEXICON
from verse.metrics import known_form, scans
from verse.parser import NotVerse, Reader, information_bits
from verse.play import (
    PLAY_BYTES,
    REPEAT_WINDOW,
    Play,
    PlayGrammar,
    Writer,
    class_words,
    compiled_grammar,
    without_words,
    write_play,
)

WORD = re.compile(r"'?[A-Za-z](?:['-]?[A-Za-z])*")

# Changed on purpose (another word, rule or weight)? Print the new one with
#   python -c "import hashlib; from verse.play import write_play; \
#       print(hashlib.sha256(write_play(0, 0).text.encode()).hexdigest())"
# and say in CHANGELOG.md that the default corpus is another.
PLAY_0_OF_SEED_0 = "58aec9106d1d09db3ce85c06b619c97cdf03cd6574b6932ef6f8e15756b25e27"


@cache
def plays(count: int) -> tuple[Play, ...]:
    return tuple(write_play(7, index) for index in range(count))


def is_spoken(line: str) -> bool:
    heading = re.match(r"\[|SCENE|FINIS|Enter |Exit |THE [A-Z]+ OF|[A-Z]+:$", line)
    return bool(line) and not heading


def test_the_bytes_of_a_play_are_pinned() -> None:
    text = write_play(0, 0).text
    assert hashlib.sha256(text.encode("ascii")).hexdigest() == PLAY_0_OF_SEED_0


def test_a_play_depends_on_seed_and_index_alone() -> None:
    before = write_play(3, 5)
    write_play(4, 6)
    compiled_grammar.cache_clear()  # tables built in another order
    for index in (9, 5):
        again = write_play(3, index)
    assert again == before
    assert write_play(3, 6).text != before.text != write_play(4, 5).text


def test_reading_the_text_gives_the_bits_of_writing_it() -> None:
    for play in plays(30):
        assert information_bits(play.text) == pytest.approx(play.information_bits, abs=1e-6)


def test_information_lies_between_sane_bounds_and_below_gzip() -> None:
    text = "".join(play.text for play in plays(30))
    bits = sum(play.information_bits for play in plays(30))
    assert 0.8 < bits / len(text) < 2.2
    assert 8 * len(gzip.compress(text.encode("ascii"), 9)) > bits


def test_options_that_the_text_fits_twice_are_refused() -> None:
    noun = LEXICON.class_of["harbour"].key
    twice = Options(["harbour", noun], [1, 1])
    with pytest.raises(AssertionError, match="can be read as"):
        Reader("harbour").choose(twice)
    assert Reader("vessel").choose(twice) == 1
    with pytest.raises(AssertionError, match="comes twice"):
        Options(["harbour", "harbour"], [1, 1])


def test_a_name_that_starts_like_another_is_not_taken_for_it() -> None:
    names = Options(["JULIA", "JULIANA"], [1, 1], literal=True)
    assert Reader("JULIANA:").choose(names) == 1
    assert Reader("JULIA:").choose(names) == 0


def first_match(pattern: str, edit: Callable[[re.Match[str]], str]) -> str:
    """A play in which the first match of `pattern` is replaced."""
    for play in plays(30):
        changed = re.sub(pattern, edit, play.text, count=1, flags=re.MULTILINE)
        if changed != play.text:
            return changed
    raise AssertionError(f"no play has {pattern}")


def test_a_misspelt_word_is_not_verse() -> None:
    with pytest.raises(NotVerse, match=r"line \d+: .* expects"):
        information_bits(first_match(r" the (?=\w)", lambda m: " teh "))


def test_a_wrong_number_is_not_verse() -> None:
    with pytest.raises(NotVerse):
        information_bits(first_match(r"^Thou art ", lambda m: "Thou is "))
    with pytest.raises(NotVerse):
        information_bits(first_match(r"^I am ", lambda m: "I is "))


def test_a_wrong_article_is_not_verse() -> None:
    with pytest.raises(NotVerse):
        information_bits(first_match(r" an (?=\w)", lambda m: " a "))


def test_a_wrong_title_is_not_verse() -> None:
    with pytest.raises(NotVerse):
        information_bits(first_match(r"^My master,", lambda m: "My lady,"))


def test_a_speaker_who_is_not_on_stage_is_not_verse() -> None:
    text = plays(1)[0].text
    scene = text.split("SCENE.")[1]
    absent = next(name.upper() for name in LEXICON.gender_of_name if name.upper() not in scene)
    with pytest.raises(NotVerse, match=absent):
        information_bits(re.sub(r"^[A-Z]+:$", f"{absent}:", text, count=1, flags=re.M))


def test_nobody_speaks_twice_in_a_row() -> None:
    text = plays(1)[0].text
    speakers = re.findall(r"^[A-Z]+:$", text, re.M)
    swapped = text.replace(speakers[1], speakers[0], 1)
    with pytest.raises(NotVerse):
        information_bits(swapped)


def test_a_broken_rhyme_is_not_verse() -> None:
    pattern = r"(\[Coming forward\]\n.*\n.* )(\w+)([.!]\n)"
    with pytest.raises(NotVerse):
        information_bits(
            first_match(pattern, lambda m: m[1] + ("pie" if m[2] != "pie" else "moon") + m[3])
        )


def test_a_play_cut_short_or_continued_is_not_verse() -> None:
    text = plays(1)[0].text
    for wrong in ("", text[:-1], text[: len(text) // 2], text + "\n", text + text):
        with pytest.raises(NotVerse):
            information_bits(wrong)


def chi_square(counts: Counter[int], weights: list[int]) -> float:
    count, total = sum(counts.values()), sum(weights)
    return sum(
        (counts[i] - count * w / total) ** 2 / (count * w / total) for i, w in enumerate(weights)
    )


def test_choices_are_as_frequent_as_their_weights_say() -> None:
    options = class_words(LEXICON.class_of["harbour"].key, "sea")
    weights = LEXICON.class_of["harbour"].weights("sea")
    writer = Writer(0, 0)
    counts = Counter(writer.choose(options) for _ in range(50_000))
    freedom = len(weights) - 1
    threshold = freedom + 4 * (2 * freedom) ** 0.5  # four standard deviations
    assert chi_square(counts, weights) < threshold
    biased = [w + w // 5 if i % 2 else w for i, w in enumerate(weights)]  # every other by a fifth
    assert chi_square(counts, biased) > threshold


def test_the_probabilities_of_all_sentences_of_a_small_grammar_sum_to_one() -> None:
    small = Grammar(
        "SENTENCE = 2: LINE . / | 1: LINE ! /\n"
        "LINE = 3: WHO MOD VT0 the A N | 2: WHO MOD VT0 my A N | 1: thou art VTX by every N\n"
        "WHO = 2: i | 1: we | 1: he?m\nMOD = 3: shall | 1: must\nVTX = 3: VTD | 1: VTN",
        ("LINE",),
    )
    total, leaves = Fraction(0), 0
    pending = [(small.start("SENTENCE"), 0, Fraction(1))]
    while pending:
        state, position, probability = pending.pop()
        if state == DONE:
            total, leaves = total + probability, leaves + 1
            continue
        options = small.options(state, position, NO_CONTEXT)
        before = 0
        for i, cumulative in enumerate(options.cumulative):
            conditional = Fraction(cumulative - before, options.total)
            before = cumulative
            pending.append((*small.after(options, i), probability * conditional))
    assert leaves > 4
    assert total == 1


def test_no_line_is_spoken_twice_within_the_window() -> None:
    for play in plays(30):
        last_start: dict[str, int] = {}
        start = 0
        for line in play.text.split("\n"):
            if is_spoken(line):
                words = " ".join(WORD.findall(line))
                assert start - last_start.get(words, -(10**9)) > REPEAT_WINDOW, line
                last_start[words] = start
            start += len(line) + 1


def test_the_last_word_may_not_repeat_a_recent_line() -> None:
    play = PlayGrammar(Writer(0, 0))
    play.topic = "sea"
    play.recent.append((0, "I see the", "ship"))
    play.recent_starts["I see the"] += 1
    assert list(play.repeating_words("I see the", 2_999)) == ["ship"]
    options = class_words(LEXICON.class_of["ship"].key, "sea")
    assert "ship" in options.keys
    assert "ship" not in without_words(options, ["ship"]).keys
    assert list(play.repeating_words("I see the", 3_001)) == []


def test_a_megabyte_has_two_thousand_words_and_about_65_characters() -> None:
    text = "".join(play.text for play in plays(100))
    words = {word for line in text.split("\n") if is_spoken(line) for word in WORD.findall(line)}
    assert len({known_form(word) for word in words}) >= 2_000
    assert 60 <= len(set(text)) <= 70
    assert text.isascii()
    assert len(text) / 100 == pytest.approx(PLAY_BYTES, rel=0.1)


def test_every_line_has_ten_syllables_of_known_words() -> None:
    for play in plays(10):
        for line in filter(is_spoken, play.text.split("\n")):
            words = WORD.findall(line)
            assert all(map(known_form, words)), line
            assert scans(words), line


def test_couplets_rhyme_on_different_words() -> None:
    couplets = 0
    for play in plays(30):
        for first, second in re.findall(
            r"\[Coming forward\]\n.*?([\w'-]+)\W?\n.*?([\w'-]+)\W?\n", play.text
        ):
            couplets += 1
            assert first != second
            assert LEXICON.rhyme_of[first] == LEXICON.rhyme_of[second]
    assert couplets >= 90
