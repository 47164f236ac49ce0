"""The lexicon: every form in one class, and rhymes that can always be closed."""

from collections import Counter

from verse.lexicon import LEXICON, WORDS


def test_every_form_is_in_one_class() -> None:
    occurrences = Counter(
        word for word_class in LEXICON.classes.values() for word in word_class.words
    )
    assert set(occurrences) == WORDS
    assert max(occurrences.values()) == 1
    assert len(WORDS) >= 2_300


def test_no_capitalised_word_is_also_a_name() -> None:
    clashing = {word for word in WORDS if word[0].isupper() and word.lower() in WORDS}
    assert not clashing


def test_every_rhyme_can_be_closed_by_two_nouns_whatever_the_article() -> None:
    for rhyme in LEXICON.rhymes:
        nouns = [word for word in rhyme if LEXICON.class_of[word].key == "<NR|s|c>"]
        assert len(nouns) >= 2, rhyme
