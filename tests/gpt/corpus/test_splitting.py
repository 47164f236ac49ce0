"""Splitting: by document or contiguous, with filters, exact and the same everywhere."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import planted
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_corpus import joined, source_of, written

from gpt.corpus import sources, splitting
from gpt.corpus.manifest import SPLITS
from gpt.corpus.readers import Document
from gpt.corpus.sources import Source
from gpt.corpus.splitting import Filters
from gpt.corpus.writer import CorpusWriter
from gpt.errors import DataError
from gpt.files import read_json


def table(path: Path, rows: list[str], column: str = "text") -> None:
    lines = "".join(json.dumps({column: text}) + "\n" for text in rows)
    path.write_text(lines, encoding="utf-8")


@pytest.mark.fault(16, planted=planted.EMPTY_TEXT_TAKEN)
@pytest.mark.parametrize("text", ["", " \n\t ", "\ufeff"])
def test_text_that_is_empty_or_white_space_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode())
    with pytest.raises(DataError, match="empty or only white space"):
        written(tmp_path / "corpus", sources.own_text(tmp_path / "a.txt"))


def test_rows_are_split_by_document(tmp_path: Path) -> None:
    rows = [f"row {number}" for number in range(40)]
    table(tmp_path / "a.jsonl", rows)
    chunks = written(tmp_path / "corpus", sources.own_text(tmp_path / "a.jsonl"))
    assert [len(chunks[split]) for split in SPLITS] == [36, 4, 0]
    assert sorted(text for split in SPLITS for _, text in chunks[split]) == sorted(rows)


def test_no_name_is_in_two_splits(tmp_path: Path) -> None:
    names = [f"name{n % 70}" for n in range(200)]
    (tmp_path / "names.txt").write_text("\n".join(names), encoding="utf-8")
    source = sources.name_list(tmp_path / "names.txt")
    chunks = written(tmp_path, source, val_fraction=0.2, test_fraction=0.2)
    kept = [text for split in SPLITS for _, text in chunks[split]]
    assert sorted(kept) == sorted(set(names))


@pytest.mark.parametrize("length", [2, 9, 10, 11, 19, 999, 1000, 1003, 12345])
def test_a_single_text_is_cut_where_nanogpt_cuts_it(tmp_path: Path, length: int) -> None:
    text = ("To be, or not to be: é€😀\n" * length)[:length]
    chunks = written(tmp_path, source_of(text))
    assert joined(chunks["train"]) == text[: int(length * 0.9)]
    assert joined(chunks["val"]) == text[int(length * 0.9) :]
    assert chunks["test"] == []


def test_a_test_split_is_the_end_of_a_single_text(tmp_path: Path) -> None:
    text = "".join(chr(0x4E00 + n) for n in range(100))
    chunks = written(tmp_path, source_of(text), val_fraction=0.2, test_fraction=0.1)
    assert [len(joined(chunks[split])) for split in SPLITS] == [70, 20, 10]
    assert "".join(joined(chunks[split]) for split in SPLITS) == text


def test_few_documents_are_each_cut(tmp_path: Path) -> None:
    chunks = written(tmp_path, source_of("a" * 10, "b" * 20))
    assert chunks["train"] == [("0", "a" * 9), ("1", "b" * 18)]
    assert chunks["val"] == [("0", "a"), ("1", "bb")]


def test_a_cut_does_not_depend_on_how_the_text_is_read(tmp_path: Path) -> None:
    text = "".join(chr(0x4E00 + n) for n in range(1000))
    for size in (1, 7, 899, 900, 901, 1000):
        reads = [text[n : n + size] for n in range(0, len(text), size)]
        source = Source(1, lambda p=reads: iter([Document("0", lambda: iter(p))]))
        assert joined(written(tmp_path, source)["val"]) == text[900:]


def test_many_documents_are_held_out_whole_and_exactly_as_many(tmp_path: Path) -> None:
    texts = [f"document {n}" for n in range(50)]
    chunks = written(tmp_path, source_of(*texts), val_fraction=0.1, test_fraction=0.2)
    assert [len(chunks[split]) for split in SPLITS] == [35, 5, 10]
    assert sorted(text for split in SPLITS for _, text in chunks[split]) == sorted(texts)


def test_the_same_seed_holds_out_the_same_documents_and_another_others() -> None:
    draws = [splitting.assign(100, seed, 0.1, 0.1).tolist() for seed in (3, 3, 4)]
    assert draws[0] == draws[1] != draws[2]


def test_which_documents_are_held_out_is_pinned() -> None:
    # Drawn by hash, so the same on every machine and Python. Another draw gives every user
    # another split: change it only on purpose, and say so in CHANGELOG.md.
    held_out = np.flatnonzero(splitting.assign(40, 0, 0.1, 0.0) == SPLITS.index("val")).tolist()
    assert held_out == [1, 11, 25, 38]


@given(
    count=st.integers(2, 60),
    val=st.floats(0.01, 0.98),
    test=st.floats(0, 0.98),
)
def test_a_split_by_document_leaves_no_split_without_one(
    count: int, val: float, test: float
) -> None:
    if val + test >= 1:
        test = 0.0
    with TemporaryDirectory() as folder, CorpusWriter(Path(folder)) as writer:
        how = splitting.split_corpus(
            source_of(*["text"] * count), writer, seed=0, val_fraction=val, test_fraction=test
        )
        splits = writer.finish({})["splits"]
    if how.split_by == "document":
        assert all(splits[name]["documents"] for name in ("train", "val") + ("test",) * (test > 0))


@given(
    texts=st.lists(st.text(alphabet="aé€😀", max_size=6), min_size=1, max_size=12),
    limit=st.integers(4, 40),
)
def test_a_byte_limit_gives_the_longest_beginning_of_whole_characters(
    texts: list[str], limit: int
) -> None:
    with TemporaryDirectory() as folder:
        texts = ["abc", *texts]
        chunks = written(Path(folder), source_of(*texts), max_bytes=limit)
    by_document: dict[str, str] = {str(n): "" for n in range(len(texts))}
    for split in SPLITS:
        for doc, text in chunks[split]:
            by_document[doc] += text
    expected = "".join(texts).encode()[:limit].decode(errors="ignore")
    assert "".join(by_document.values()) == expected


def test_a_byte_limit_bounds_the_bytes_of_the_corpus(tmp_path: Path) -> None:
    written(tmp_path, source_of(*["é" * 50] * 40), max_bytes=1001)
    splits = read_json(tmp_path / "corpus.json")["splits"]
    assert sum(entry["bytes"] for entry in splits.values()) == 1000


def test_what_a_filter_leaves_out_is_counted_by_its_reason(tmp_path: Path) -> None:
    texts = ["", "a", "bb", "ccc", "dddd", "bb", "ccc", "é€"]
    chunks = written(tmp_path, source_of(*texts), val_fraction=0.34, drop_duplicates=True)
    kept = sorted(text for split in SPLITS for _, text in chunks[split])
    assert kept == sorted(["a", "bb", "ccc", "dddd", "é€"])
    manifest = read_json(tmp_path / "corpus.json")
    assert manifest["left_out"] == {"empty": 1, "duplicate": 2}
    assert manifest["documents"] == 5


def test_without_a_filter_only_empty_documents_are_left_out(tmp_path: Path) -> None:
    for count in (2, 20):
        written(tmp_path, source_of("", *(f"text {n}" for n in range(count))))
        manifest = read_json(tmp_path / "corpus.json")
        assert (manifest["left_out"], manifest["documents"]) == ({"empty": 1}, count)


@pytest.mark.parametrize("last", [9, 2**20])
def test_of_two_documents_that_differ_by_a_character_both_stay(tmp_path: Path, last: int) -> None:
    texts = ["x" * last + "a", "x" * last + "b", "x" * last + "a"]
    chunks = written(tmp_path, source_of(*texts), drop_duplicates=True)
    assert sorted({doc for split in SPLITS for doc, _ in chunks[split]}) == ["0", "1"]


def test_duplicates_are_found_across_the_digests_that_are_merged_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(splitting, "RECENT_DIGESTS", 5)
    seen = splitting.DigestSet()
    digests = [number.to_bytes(8, "little") for number in range(40)]
    assert [seen.add(digest) for digest in digests] == [False] * 40
    assert [seen.add(digest) for digest in digests] == [True] * 40


def test_duplicates_are_gone_before_the_split(tmp_path: Path) -> None:
    written(tmp_path, source_of(*(f"text {n % 50}" for n in range(200))), drop_duplicates=True)
    splits = read_json(tmp_path / "corpus.json")["splits"]
    assert [splits[split]["documents"] for split in SPLITS] == [45, 5, 0]
    assert splits["val"]["documents_also_in_train"] == 0


def test_a_byte_limit_counts_what_duplicates_leave(tmp_path: Path) -> None:
    source = source_of("aaaa", "aaaa", "bbbb", "cccc")
    chunks = written(tmp_path, source, drop_duplicates=True, max_bytes=6)
    texts = [text for split in ("train", "val") for _, text in chunks[split]]
    assert sorted("".join(texts)) == list("aaaabb")


@pytest.mark.parametrize(("limit", "capped"), [(7, True), (8, False), (9, False), (4, True)])
def test_a_byte_limit_that_cut_says_so(tmp_path: Path, limit: int, capped: bool) -> None:
    with CorpusWriter(tmp_path) as writer:
        split = splitting.split_corpus(
            source_of("aaaa", "bbbb"),
            writer,
            seed=0,
            val_fraction=0.25,
            test_fraction=0.0,
            filters=Filters(max_bytes=limit),
        )
    assert split.capped == capped
