"""Scores of the rules of a play: 1 for what the grammar writes, the planted fraction for faults."""

from functools import cache

import pytest

from verse.metrics import RULES, RuleCounts, count_rules
from verse.minimal_pairs import PLAY_SEED, MinimalPair, minimal_pairs
from verse.parser import NotVerse, Reader
from verse.play import PlayGrammar, write_play

PLAYS = 4
RULES_OF_PAIRS = [rule for rule in RULES if rule != "sentences"]


@cache
def pairs(rule: str) -> tuple[MinimalPair, ...]:
    return tuple(pair for pair in minimal_pairs(PLAYS) if pair.rule == rule)


def on_stage(pair: MinimalPair, line: str) -> str:
    """The text in which `line` is judged: of a spoken line its whole scene."""
    if pair.context.startswith("THE "):
        return pair.context + line
    for index in range(PLAYS):
        before, here, after = write_play(PLAY_SEED, index).text.partition(pair.context + pair.right)
        if here:
            scene = before[before.rindex("SCENE.") :] + pair.context + line + after
            return f"THE COMEDY OF KATE AND RUTH\n\n{scene.partition('[Exeunt.]')[0]}[Exeunt.]\n"
    raise AssertionError(pair)


@pytest.mark.parametrize("start", [0, 1, 777, 4_000])
def test_plays_score_1_wherever_they_are_cut(start: int) -> None:
    counts = count_rules(write_play(7, index).text[start : start + 8_000] for index in range(6))
    assert set(counts.fractions().values()) == {1.0}
    assert all(counts.cases[rule] for rule in RULES)


@pytest.mark.parametrize("rule", RULES_OF_PAIRS)
@pytest.mark.parametrize("every", [1, 3])
def test_planted_faults_score_their_fraction(rule: str, every: int) -> None:
    cases = faults = kept = 0
    for number, pair in enumerate(pairs(rule)):
        line = pair.wrong if number % every == 0 else pair.right
        counts = count_rules([on_stage(pair, line)])
        cases += counts.cases[rule]
        kept += counts.kept[rule]
        faults += number % every == 0
    assert faults >= 4
    assert kept == cases - faults


@pytest.mark.parametrize(
    ("rule", "also"),
    [
        *((rule, set()) for rule in ("speakers", "turns", "entrances")),
        *((rule, {"sentences"}) for rule in ("agreement", "metre", "rhyme")),
        ("words", {"sentences", "metre", "agreement"}),
    ],
)
def test_a_fault_breaks_its_rule_and_those_that_contain_it(rule: str, also: set[str]) -> None:
    for pair in pairs(rule):
        right, wrong = (count_rules([on_stage(pair, line)]) for line in (pair.right, pair.wrong))
        broken = {name for name in RULES if wrong.kept[name] < right.kept[name]}
        assert rule in broken <= {rule, *also}, pair


@pytest.mark.parametrize("rule", ["speakers", "turns", "entrances"])
def test_the_grammar_refuses_the_wrong_line_at_its_name(rule: str) -> None:
    for pair in pairs(rule):
        until = read_until(pair.context + pair.wrong)
        assert len(pair.context) <= until < read_until(pair.context + pair.right)


def read_until(text: str) -> int:
    """How far the grammar reads `text`, the beginning of a play."""
    reader = Reader(text)
    with pytest.raises(NotVerse):
        PlayGrammar(reader).play()
    return reader.position


def test_a_pair_differs_in_one_word() -> None:
    for rule in RULES_OF_PAIRS:
        assert len(pairs(rule)) >= PLAYS
        for pair in pairs(rule):
            right, wrong = pair.right.split(), pair.wrong.split()
            assert sum(a != b for a, b in zip(right, wrong, strict=True)) == 1, pair


def test_no_corpus_has_the_plays_of_the_pairs() -> None:
    assert PLAY_SEED < 0  # data.seed is at least 0
    assert pairs("words")[0].context in write_play(PLAY_SEED, 0).text


def test_lines_cut_off_by_the_ends_of_a_text_do_not_count() -> None:
    text = "zzz qqq\nI see the ship\nVIOLA:\nThe gentle harbour hath the ship in sight.\nI se"
    counts = count_rules([text])
    assert counts.cases == {"words": 12, "metre": 2}
    assert counts.kept == {"words": 12, "metre": 1}


@pytest.mark.parametrize("text", ["", "\n", "a", "VIOLA:\n\n", "\n\n[Coming forward]\n"])
def test_what_never_applies_has_no_score(text: str) -> None:
    counts = count_rules([text])
    assert counts == RuleCounts()
    assert set(counts.fractions().values()) == {None}


@pytest.mark.parametrize(
    ("last", "kept"), [("light", 1), ("night", 0), ("moon", 0), ("lihgt", 0), ("", 0)]
)
def test_a_scene_closes_on_a_rhyme(last: str, kept: int) -> None:
    text = (
        "THE COMEDY OF KATE AND RUTH\n\nSCENE. A bank.\n\nEnter KATE and RUTH.\n\nKATE:\n"
        f"[Coming forward]\nThe ship is near the night,\nAnd I have lost the {last}.\n\n[Exeunt.]\n"
    )
    assert (count_rules([text]).kept["rhyme"], count_rules([text]).cases["rhyme"]) == (kept, 1)
