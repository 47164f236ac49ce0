"""Texts on their way into the corpus: read, downloaded, split, written in parts and read again."""

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import planted
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt.corpus import readers, sources, splitting
from gpt.corpus.manifest import SPLITS, read_chunks, read_manifest
from gpt.corpus.readers import READ_BYTES, Document, in_memory
from gpt.corpus.sources import Source
from gpt.corpus.splitting import Filters
from gpt.corpus.writer import CorpusWriter
from gpt.errors import DataError

Chunks = dict[str, list[tuple[str, str]]]


def source_of(*texts: str) -> Source:
    """A source of `texts`, named by their index."""
    documents = [in_memory(str(n), text) for n, text in enumerate(texts)]
    return Source(len(texts), lambda: iter(documents))


def contents(source: Source) -> dict[str, str]:
    return {document.name: "".join(document.chunks()) for document in source.documents()}


def written(folder: Path, source: Source, **options: Any) -> Chunks:
    """`source` split and written to `folder`, then read back as {split: [(doc, chunk), ...]}."""
    known = {name: options.pop(name) for name in list(options) if hasattr(Filters, name)}
    settings = {"seed": 0, "val_fraction": 0.1, "test_fraction": 0.0} | options
    with CorpusWriter(folder) as writer:
        split = splitting.split_corpus(source, writer, filters=Filters(**known), **settings)
        writer.finish({"documents": split.documents, "left_out": split.left_out})
    return {split: list(read_chunks(folder, split)) for split in SPLITS}


def joined(parts: list[tuple[str, str]]) -> str:
    return "".join(text for _, text in parts)


# --- reading own text -----------------------------------------------------------------------------


def test_a_file_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("Hello\n", encoding="utf-8")
    assert contents(sources.own_text(tmp_path / "a.log")) == {"a.log": "Hello\n"}


def test_a_folder_gives_its_text_files_sorted_and_below_it(tmp_path: Path) -> None:
    for name in ("b.txt", "a.MD", "sub/c.txt", "picture.png", "noted.txt.bak"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    assert list(contents(sources.own_text(tmp_path)).items()) == [
        ("a.MD", "a.MD"),
        ("b.txt", "b.txt"),
        ("sub/c.txt", "sub/c.txt"),
    ]


def test_names_that_start_with_a_dot_are_passed_over(tmp_path: Path) -> None:
    for name in ("a.txt", ".hidden.txt", ".git/b.txt", "sub/.c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    assert list(contents(sources.own_text(tmp_path))) == ["a.txt"]


def test_a_dot_above_the_folder_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / ".here").mkdir()
    (tmp_path / ".here" / "a.txt").write_text("a", encoding="utf-8")
    assert list(contents(sources.own_text(tmp_path / ".here"))) == ["a.txt"]


def test_a_folder_named_like_a_text_file_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").mkdir()
    (tmp_path / "letters.txt" / "a.txt").write_text("a", encoding="utf-8")
    assert contents(sources.own_text(tmp_path)) == {"letters.txt/a.txt": "a"}


@pytest.mark.fault(16, planted=planted.LINE_BREAKS_CHANGED)
@pytest.mark.fault(17)
@pytest.mark.parametrize(
    "text", ["one\r\ntwo\r\n", "a\0b", "\x1a\f\x85\u2028\u2029", "é€😀", "<|endoftext|>", "a\rb"]
)
def test_text_stands_in_the_corpus_as_it_was(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode())
    parts = written(tmp_path / "corpus", sources.own_text(tmp_path / "a.txt"))
    assert joined(parts["train"]) + joined(parts["val"]) == text


@pytest.mark.fault(16, planted=planted.BOM_KEPT)
def test_a_byte_order_mark_is_left_out_at_the_start_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa\xef\xbb\xbfb")
    assert "".join(readers.read_text(tmp_path / "a.txt")) == "a\ufeffb"


def test_characters_across_the_edge_of_a_read_block_stay_whole(tmp_path: Path) -> None:
    for before in range(5):
        text = "x" * (READ_BYTES - before) + "😀" * 3
        (tmp_path / "a.txt").write_bytes(text.encode())
        assert "".join(readers.read_text(tmp_path / "a.txt")) == text


@pytest.mark.fault(16, planted=planted.WRONG_BYTE_NAMED)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    "before", [0, 1, 100, *range(READ_BYTES - 5, READ_BYTES + 3), 2 * READ_BYTES]
)
@pytest.mark.parametrize(
    "wrong", [b"\xff tail", b"\xe9", b"\xe2\x82", b"\xf0\x9f\x98", b"\xe2\x82x"]
)
def test_what_is_not_utf8_is_named_by_its_byte(
    tmp_path: Path, bom: bytes, before: int, wrong: bytes
) -> None:
    (tmp_path / "a.txt").write_bytes(bom + b"x" * before + wrong)
    with pytest.raises(DataError, match=rf"a\.txt: byte {len(bom) + before} is not UTF-8;"):
        list(readers.read_text(tmp_path / "a.txt"))


def test_a_name_that_is_not_utf8_is_refused_in_one_line(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("a", encoding="utf-8")
    with pytest.raises(DataError):
        written(tmp_path / "corpus", sources.own_text(tmp_path))


@pytest.mark.fault(16, planted=planted.EMPTY_TEXT_TAKEN)
@pytest.mark.parametrize("text", ["", " \n\t ", "\ufeff"])
def test_text_that_is_empty_or_white_space_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode())
    with pytest.raises(DataError, match="empty or only white space"):
        written(tmp_path / "corpus", sources.own_text(tmp_path / "a.txt"))


@pytest.mark.fault(18)
def test_a_path_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such file or folder"):
        sources.own_text(tmp_path / "nowhere")


def test_a_folder_without_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{tmp_path}: holds no text"):
        sources.own_text(tmp_path)


def test_a_name_longer_than_the_system_allows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        sources.own_text(tmp_path / ("x" * 300))


@pytest.mark.fault(18)
@pytest.mark.parametrize("named", ["loop.txt", "."])
def test_a_loop_of_symlinks_is_refused_and_not_followed(tmp_path: Path, named: str) -> None:
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    with pytest.raises(DataError, match="loop"):
        sources.own_text(tmp_path / named)


@pytest.mark.fault(18, planted=planted.LINKS_FOLLOWED)
def test_a_folder_linked_into_itself_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    assert list(contents(sources.own_text(tmp_path))) == ["a.txt"]


@pytest.fixture
def shut() -> Iterator[Path]:
    """A folder with a text, a file and a folder that nobody may read, not even a test of root."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("open/a.txt", "open/sub/b.txt", "shut.txt"):
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text("text", encoding="utf-8")
        folder.chmod(0o755)
        (folder / "shut.txt").chmod(0o000)
        (folder / "open" / "sub").chmod(0o000)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            (folder / "open" / "sub").chmod(0o700)


@pytest.mark.fault(18)
@pytest.mark.parametrize("named", ["shut.txt", "open/sub", "open/sub/b.txt"])
def test_what_cannot_be_read_is_refused_by_name(shut: Path, named: str) -> None:
    with pytest.raises(DataError, match=rf"{named}: Permission denied"):
        sources.own_text(shut / named)


@pytest.mark.fault(18, planted=planted.UNREADABLE_FOLDER_PASSED_BY)
def test_a_folder_below_that_cannot_be_read_is_not_passed_over_in_silence(shut: Path) -> None:
    with pytest.raises(DataError, match="sub: Permission denied"):
        sources.own_text(shut / "open")


@pytest.mark.parametrize("folder", [False, True])
def test_a_stated_hash_is_held_to(tmp_path: Path, folder: bool) -> None:
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    path = tmp_path if folder else tmp_path / "a.txt"
    right = sources.own_text(path).metadata["sha256"]
    assert sources.own_text(path, right).count == 1
    (tmp_path / "a.txt").write_text("b", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"data\.sha256 = [0-9a-f]{64}: the sha256 of .* is [0-9a-f]{64}"
    ):
        sources.own_text(path, right)


def test_names_that_repeat_are_one_document(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("emma\nava\n\nemma \nmia\nava\n", encoding="utf-8")
    source = sources.name_list(tmp_path / "names.txt")
    assert list(contents(source).values()) == ["emma", "ava", "mia"]
    assert (source.count, source.metadata["duplicates_removed"]) == (3, 2)


def test_no_name_stands_in_two_splits(tmp_path: Path) -> None:
    names = [f"name{n % 70}" for n in range(200)]
    (tmp_path / "names.txt").write_text("\n".join(names), encoding="utf-8")
    source = sources.name_list(tmp_path / "names.txt")
    parts = written(tmp_path, source, val_fraction=0.2, test_fraction=0.2)
    found = [text for split in SPLITS for _, text in parts[split]]
    assert sorted(found) == sorted(set(names))


def table(path: Path, rows: list[str], column: str = "text") -> None:
    lines = "".join(json.dumps({column: row}) + "\n" for row in rows)
    path.write_text(lines, encoding="utf-8")


def test_a_folder_may_mix_texts_and_tables(tmp_path: Path) -> None:
    (tmp_path / "poem.md").write_text("A poem", encoding="utf-8")
    (tmp_path / "old.txt.gz").write_bytes(gzip.compress(b"An old text"))
    table(tmp_path / "tales.jsonl", ["One", "Two"])
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "all.tar.gz").write_bytes(b"\x1f\x8b")
    source = sources.own_text(tmp_path)
    assert contents(source) == {
        "old.txt.gz": "An old text",
        "poem.md": "A poem",
        "tales.jsonl:1": "One",
        "tales.jsonl:2": "Two",
    }
    assert (source.metadata["files"], source.metadata["files_passed_over"]) == (3, 2)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.txt", ["a.txt", "sub/b.txt"]),
        ("sub/*", ["sub/b.txt", "sub/c.log"]),
        ("*.log", ["sub/c.log"]),
    ],
)
def test_a_pattern_names_the_files_of_a_folder(
    tmp_path: Path, pattern: str, found: list[str]
) -> None:
    for name in ("a.txt", "d.md", "sub/b.txt", "sub/c.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    assert list(contents(sources.own_text(tmp_path, files=pattern))) == found


def test_a_pattern_that_fits_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    with pytest.raises(DataError, match=r"holds no file like \*\.jsonl"):
        sources.own_text(tmp_path, files="*.jsonl")


def test_the_column_asked_for_is_the_text(tmp_path: Path) -> None:
    table(tmp_path / "a.jsonl", ["One"], "story")
    assert contents(sources.own_text(tmp_path / "a.jsonl", column="story")) == {"a.jsonl:1": "One"}


def test_rows_are_split_by_document(tmp_path: Path) -> None:
    rows = [f"row {number}" for number in range(40)]
    table(tmp_path / "a.jsonl", rows)
    parts = written(tmp_path / "corpus", sources.own_text(tmp_path / "a.jsonl"))
    assert [len(parts[split]) for split in SPLITS] == [36, 4, 0]
    assert sorted(text for split in SPLITS for _, text in parts[split]) == sorted(rows)


def test_stories_are_the_texts_between_separators(tmp_path: Path) -> None:
    text = "Once upon a time.\n<|endoftext|>\n\nA second\n\nstory.\n<|endoftext|>\n"
    (tmp_path / "valid.txt").write_text(text, encoding="utf-8")
    source = sources.stories([tmp_path / "valid.txt"], "")
    assert list(contents(source).values()) == ["Once upon a time.", "A second\n\nstory."]


# --- splitting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [2, 9, 10, 11, 19, 999, 1000, 1003, 12345])
def test_a_single_text_is_cut_where_nanogpt_cuts_it(tmp_path: Path, length: int) -> None:
    text = ("To be, or not to be: é€😀\n" * length)[:length]
    parts = written(tmp_path, source_of(text))
    assert joined(parts["train"]) == text[: int(length * 0.9)]
    assert joined(parts["val"]) == text[int(length * 0.9) :]
    assert parts["test"] == []


def test_a_test_split_is_the_end_of_a_single_text(tmp_path: Path) -> None:
    text = "".join(chr(0x4E00 + n) for n in range(100))
    parts = written(tmp_path, source_of(text), val_fraction=0.2, test_fraction=0.1)
    assert [len(joined(parts[split])) for split in SPLITS] == [70, 20, 10]
    assert "".join(joined(parts[split]) for split in SPLITS) == text


def test_few_documents_are_each_cut(tmp_path: Path) -> None:
    parts = written(tmp_path, source_of("a" * 10, "b" * 20))
    assert parts["train"] == [("0", "a" * 9), ("1", "b" * 18)]
    assert parts["val"] == [("0", "a"), ("1", "bb")]


def test_a_cut_does_not_depend_on_how_the_text_is_read(tmp_path: Path) -> None:
    text = "".join(chr(0x4E00 + n) for n in range(1000))
    for size in (1, 7, 899, 900, 901, 1000):
        pieces = [text[n : n + size] for n in range(0, len(text), size)]
        source = Source(1, lambda p=pieces: iter([Document("0", lambda: iter(p))]))
        assert joined(written(tmp_path, source)["val"]) == text[900:]


def test_many_documents_are_held_out_whole_and_exactly_as_many(tmp_path: Path) -> None:
    texts = [f"document {n}" for n in range(50)]
    parts = written(tmp_path, source_of(*texts), val_fraction=0.1, test_fraction=0.2)
    assert [len(parts[split]) for split in SPLITS] == [35, 5, 10]
    assert sorted(text for split in SPLITS for _, text in parts[split]) == sorted(texts)


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
        found = writer.finish({})["splits"]
    if how.split_by == "document":
        assert all(found[name]["documents"] for name in ("train", "val") + ("test",) * (test > 0))


@given(
    texts=st.lists(st.text(alphabet="aé€😀", max_size=6), min_size=1, max_size=12),
    limit=st.integers(4, 40),
)
def test_a_byte_limit_gives_the_longest_beginning_of_whole_characters(
    texts: list[str], limit: int
) -> None:
    with TemporaryDirectory() as folder:
        texts = ["abc", *texts]
        parts = written(Path(folder), source_of(*texts), max_bytes=limit)
    by_document: dict[str, str] = {str(n): "" for n in range(len(texts))}
    for split in SPLITS:
        for doc, text in parts[split]:
            by_document[doc] += text
    expected = "".join(texts).encode()[:limit].decode(errors="ignore")
    assert "".join(by_document.values()) == expected


def test_a_byte_limit_bounds_the_bytes_of_the_corpus(tmp_path: Path) -> None:
    written(tmp_path, source_of(*["é" * 50] * 40), max_bytes=1001)
    assert sum(facts["bytes"] for facts in read_manifest(tmp_path)["splits"].values()) == 1000


# --- filters --------------------------------------------------------------------------------------


def test_what_a_filter_leaves_out_is_counted_by_its_reason(tmp_path: Path) -> None:
    texts = ["", "a", "bb", "ccc", "dddd", "bb", "ccc", "é€"]
    chunks = written(tmp_path, source_of(*texts), val_fraction=0.34, drop_duplicates=True)
    kept = sorted(text for split in SPLITS for _, text in chunks[split])
    assert kept == sorted(["a", "bb", "ccc", "dddd", "é€"])
    manifest = read_manifest(tmp_path)
    assert manifest["left_out"] == {"empty": 1, "duplicate": 2}
    assert manifest["documents"] == 5


def test_without_a_filter_only_empty_documents_are_left_out(tmp_path: Path) -> None:
    for count in (2, 20):
        written(tmp_path, source_of("", *(f"text {n}" for n in range(count))))
        manifest = read_manifest(tmp_path)
        assert (manifest["left_out"], manifest["documents"]) == ({"empty": 1}, count)


@pytest.mark.parametrize("last", [9, 2**20])
def test_of_two_documents_that_differ_by_a_character_both_stay(tmp_path: Path, last: int) -> None:
    texts = ["x" * last + "a", "x" * last + "b", "x" * last + "a"]
    parts = written(tmp_path, source_of(*texts), drop_duplicates=True)
    assert sorted({doc for split in SPLITS for doc, _ in parts[split]}) == ["0", "1"]


def test_duplicates_are_found_across_the_digests_that_are_merged_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(splitting, "RECENT_DIGESTS", 5)
    seen = splitting.DigestSet()
    numbers = [number.to_bytes(8, "little") for number in range(40)]
    assert [seen.add(number) for number in numbers] == [False] * 40
    assert [seen.add(number) for number in numbers] == [True] * 40


def test_duplicates_are_gone_before_the_split(tmp_path: Path) -> None:
    written(tmp_path, source_of(*(f"text {n % 50}" for n in range(200))), drop_duplicates=True)
    splits = read_manifest(tmp_path)["splits"]
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


# --- the corpus on disk ---------------------------------------------------------------------------


@pytest.mark.fault(17)
@pytest.mark.parametrize("character", ["x", "😀"])
def test_a_line_of_ten_megabytes_comes_in_parts_of_at_most_one(
    tmp_path: Path, character: str
) -> None:
    text = character * (10 * 2**20 // len(character.encode()))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    parts = written(tmp_path, sources.own_text(tmp_path / "a.txt"))
    assert max(len(part.encode()) for split in SPLITS for _, part in parts[split]) <= 2**20
    assert joined(parts["train"]) + joined(parts["val"]) == text


def test_a_document_longer_than_a_part_counts_once(tmp_path: Path) -> None:
    with CorpusWriter(tmp_path) as writer:
        writer.write("train", "long", "x" * 2**19)
        writer.write("train", "long", "y")
        writer.write("train", "short", "é")
        facts = writer.finish({})["splits"]["train"]
    counted = {key: facts[key] for key in ("documents", "characters", "bytes")}
    assert counted == {"documents": 2, "characters": 2**19 + 2, "bytes": 2**19 + 3}


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    for run in ("one", "two"):
        written(tmp_path / run, source_of(*(f"text {n}" for n in range(30))), test_fraction=0.1)
    for name in ("train.jsonl", "val.jsonl", "test.jsonl", "corpus.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.fault(14, planted=planted.CORPUS_UNCHECKED)
@pytest.mark.parametrize("at", [0, 9, -3, -1])
def test_one_flipped_bit_in_the_corpus_is_caught(tmp_path: Path, at: int) -> None:
    written(tmp_path, source_of("Once upon a time"))
    raw = bytearray((tmp_path / "train.jsonl").read_bytes())
    raw[at] ^= 1
    (tmp_path / "train.jsonl").write_bytes(raw)
    with pytest.raises(DataError, match=r"train\.jsonl: .*; delete \.dvc/cache/files"):
        list(read_chunks(tmp_path, "train"))


def test_a_corpus_that_lost_its_last_line_is_caught(tmp_path: Path) -> None:
    written(tmp_path, source_of(*["text"] * 20))
    lines = (tmp_path / "train.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "train.jsonl").write_bytes(b"".join(lines[:-1]))
    with pytest.raises(DataError, match="its sha256 is not"):
        list(read_chunks(tmp_path, "train"))


def test_a_corpus_without_its_manifest_is_not_read(tmp_path: Path) -> None:
    written(tmp_path, source_of("Once upon a time"))
    (tmp_path / "corpus.json").unlink()
    with pytest.raises(DataError, match=r"corpus\.json: not found"):
        list(read_chunks(tmp_path, "train"))


@pytest.mark.parametrize(
    "manifest", ["", "{", "[]", "{}", '{"splits": {}}', '{"splits": {"train": 1}}']
)
def test_a_damaged_manifest_is_refused_in_one_line(tmp_path: Path, manifest: str) -> None:
    written(tmp_path, source_of("Once upon a time"))
    (tmp_path / "corpus.json").write_text(manifest, encoding="utf-8")
    with pytest.raises(DataError, match=r"corpus\.json"):
        list(read_chunks(tmp_path, "train"))


def test_information_adds_up_over_the_documents_of_a_split(tmp_path: Path) -> None:
    def documents() -> Iterator[Document]:
        for n in range(20):
            yield Document(str(n), lambda: iter(["text"]), information_bits=float(2**n))

    parts = written(tmp_path, Source(20, documents))
    for split, facts in read_manifest(tmp_path)["splits"].items():
        assert facts.get("information_bits", 0) == sum(2 ** int(doc) for doc, _ in parts[split])
