"""Scores of text that a model wrote: known words, metre, rhyme."""

import re

import pytest

from verse.metrics import VerseCounts, assess, pooled_metrics
from verse.play import write_play

WORD = re.compile(r"'?[A-Za-z](?:['-]?[A-Za-z])*")


def test_a_play_scores_full_marks_and_its_words_backwards_do_not() -> None:
    text = write_play(7, 0).text
    scores = pooled_metrics([assess(text)])
    fractions = ("known_words", "metrical_lines", "rhymed_couplets")
    assert [scores[name] for name in fractions] == [1, 1, 1]
    worse = assess(WORD.sub(lambda m: m[0][::-1], text))
    assert worse.known_words < 0.7 * worse.words
    assert worse.metrical_lines < 0.9 * worse.lines


def test_lines_cut_off_by_the_ends_of_a_text_do_not_count() -> None:
    text = "zzz qqq\nI see the ship\nVIOLA:\nThe gentle harbour hath the ship in sight.\nI se"
    scores = pooled_metrics([assess(text)])
    assert scores["lines"] == 2
    assert scores["metrical_lines"] == 0.5
    assert scores["known_words"] == 1
    assert scores["rhymed_couplets"] is None


@pytest.mark.parametrize("text", ["", "\n", "a", "VIOLA:\n\n", "\n\n[Coming forward]\n"])
def test_what_cannot_be_counted_is_none(text: str) -> None:
    counts = assess(text)
    assert counts == VerseCounts()
    assert list(pooled_metrics([counts]).values()) == [0, None, 0, None, 0, None]


def test_a_couplet_that_does_not_rhyme_is_counted_as_such() -> None:
    text = "\n[Coming forward]\nThe ship is near the night,\nAnd I have lost the {}.\n\n"
    assert assess(text.format("light")).rhymed_couplets == 1
    assert assess(text.format("night")).rhymed_couplets == 0
    assert assess(text.format("moon")).rhymed_couplets == 0
    assert assess(text.format("lihgt")).rhymed_couplets == 0
