"""Shared 8-grams, counted against sets of words."""

import random
import re
from pathlib import Path

import pytest

from gpt.corpus import contamination
from gpt.corpus.contamination import shared_ngrams
from gpt.corpus.writer import CorpusWriter

Documents = list[tuple[str, str]]


def write(folder: Path, **splits: Documents) -> Path:
    with CorpusWriter(folder) as writer:
        for split, documents in splits.items():
            for doc, text in documents:
                writer.write(split, doc, text)
        writer.finish({})
    return folder


def by_hand(train: Documents, val: Documents) -> float:
    def grams(documents: Documents) -> set[tuple[str, ...]]:
        result = set()
        for _, text in documents:
            words = re.findall(r"[^\W_]+", text.lower())
            result |= {tuple(words[start : start + 8]) for start in range(len(words) - 7)}
        return result

    return len(grams(train) & grams(val)) / len(grams(val))


def written_by_chance(seed: int, count: int, words: int) -> Documents:
    rng = random.Random(seed)  # noqa: S311 (no secret)
    return [
        (str(n), " ".join(rng.choice(["To", "be", "or", "not!"]) for _ in range(words)))
        for n in range(count)
    ]


def test_the_fraction_is_that_of_sets_of_eight_words(tmp_path: Path) -> None:
    train, val = written_by_chance(1, 40, 300), written_by_chance(2, 5, 300)
    expected = by_hand(train, val)
    assert 0.05 < expected < 0.95
    assert shared_ngrams(write(tmp_path, train=train, val=val), "val") == expected


@pytest.mark.parametrize(
    ("train", "val", "fraction"),
    [
        ("a b c d e f g h", "A, b; C-d\n(e) f_g 'h'", 1.0),
        ("a b c d e f g h", "a b c d e f g i", 0.0),
        ("a b c d e f g h", "h g f e d c b a", 0.0),
        ("É b c d e f g h", "é b c d e f g h i", 0.5),
        ("a b c d e f g h", "a b c d e f g", None),
    ],
)
def test_case_and_punctuation_do_not_matter_and_order_does(
    tmp_path: Path, train: str, val: str, fraction: float | None
) -> None:
    assert shared_ngrams(write(tmp_path, train=[("0", train)], val=[("1", val)]), "val") == fraction


def test_no_run_of_words_reaches_into_the_next_document(tmp_path: Path) -> None:
    corpus = write(
        tmp_path,
        train=[("0", "a b c d"), ("1", "e f g h")],
        val=[("2", "a b c d e f g h")],
    )
    assert shared_ngrams(corpus, "val") == 0.0


def test_a_run_across_the_parts_of_a_document_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contamination, "BATCH_CHARACTERS", 500)
    words = [f"word{n}" for n in range(1000)]
    text = " ".join(words)
    with CorpusWriter(tmp_path) as writer:
        for start in range(0, len(text), 97):
            writer.write("train", "0", text[start : start + 97])
        writer.write("val", "1", text)
        writer.finish({})
    # Where a batch of the held-out text ends, words that it cuts make 8-grams of their own.
    fraction = shared_ngrams(tmp_path, "val")
    assert fraction is not None
    assert fraction > 0.95


def test_a_sample_of_many_estimates_the_fraction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = [(str(n), " ".join(f"w{n}x{m}" for m in range(400))) for n in range(100)]
    val = [*train[:15], ("v", " ".join(f"v{m}" for m in range(34 * 400)))]
    corpus = write(tmp_path, train=train, val=[(f"v{doc}", text) for doc, text in val])
    exact = shared_ngrams(corpus, "val")
    assert exact == pytest.approx(by_hand(train, val))
    monkeypatch.setattr(contamination, "MAX_HELD_OUT", 2000)
    assert shared_ngrams(corpus, "val") == pytest.approx(exact, abs=0.05)


@pytest.mark.slow
def test_two_processes_count_what_one_counts(tmp_path: Path) -> None:
    train, val = written_by_chance(1, 12, 100_000), written_by_chance(2, 2, 300_000)
    corpus = write(tmp_path, train=train, val=val)
    assert shared_ngrams(corpus, "val", 2) == shared_ngrams(corpus, "val", 1)
