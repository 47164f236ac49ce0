"""Sources: the documents of a file, a folder, a list of names, a table, stories."""

import gzip
import hashlib
import json
import os
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import planted
import pytest
from small_corpus import written

from gpt.corpus import sources
from gpt.corpus.sources import Source
from gpt.errors import DataError
from gpt.files import sha256_of_all


def contents(source: Source) -> dict[str, str]:
    return {document.name: "".join(document.chunks()) for document in source.documents()}


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


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_the_same_however_the_system_stores_umlauts(tmp_path: Path, form: str) -> None:
    for name in ("äpfel.txt", "Birnen.txt", "a/z.txt", "a-b.txt", "zebra.txt"):
        path = tmp_path / unicodedata.normalize(form, name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(name, encoding="utf-8")
    source = sources.own_text(tmp_path)
    names = ["Birnen.txt", "a/z.txt", "a-b.txt", "zebra.txt", "äpfel.txt"]
    assert list(contents(source).items()) == [(name, name) for name in names]
    combined = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    assert source.metadata["sha256"] == sha256_of_all(combined)
    assert list(contents(sources.own_text(tmp_path, files="ä*"))) == ["äpfel.txt"]


@pytest.mark.skipif(sys.platform == "darwin", reason="both are one name there")
def test_two_files_whose_names_look_the_same_are_refused(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        (tmp_path / unicodedata.normalize(form, "ä.txt")).write_text("a", encoding="utf-8")
    with pytest.raises(DataError, match="a second file of that name"):
        sources.own_text(tmp_path)


def test_names_that_start_with_a_dot_are_skipped(tmp_path: Path) -> None:
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


def test_a_name_that_is_not_utf8_is_refused_in_one_line(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("a", encoding="utf-8")
    with pytest.raises(DataError):
        written(tmp_path / "corpus", sources.own_text(tmp_path))


@pytest.mark.fault(18)
def test_a_path_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such file or folder"):
        sources.own_text(tmp_path / "nowhere")


def test_a_folder_without_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{tmp_path}: holds no txt"):
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


def test_a_linked_folder_is_read_under_its_name_unless_it_is_below_too(tmp_path: Path) -> None:
    for name in ("here/z/b.txt", "elsewhere/a.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / "here/a-link").symlink_to("z", target_is_directory=True)
    (tmp_path / "here/linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert list(contents(sources.own_text(tmp_path / "here"))) == ["linked/a.txt", "z/b.txt"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("**/*.txt", ["a.txt", "deep/b.txt"]), ("deep/**/*.txt", ["deep/b.txt"])],
)
def test_two_stars_match_files_of_the_folder_itself_too(
    tmp_path: Path, pattern: str, expected: list[str]
) -> None:
    for name in ("a.txt", "deep/b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    assert list(contents(sources.own_text(tmp_path, files=pattern))) == expected


def test_files_of_other_kinds_are_counted_and_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("pass\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"but 1 other files; set data\.path, or name .* '\*\.py'"):
        sources.own_text(tmp_path)
    assert contents(sources.own_text(tmp_path, files="*.py")) == {"a.py": "pass\n"}


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
def test_a_folder_below_that_cannot_be_read_is_not_skipped_silently(shut: Path) -> None:
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


def table(path: Path, rows: list[str], column: str = "text") -> None:
    lines = "".join(json.dumps({column: text}) + "\n" for text in rows)
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
    ("pattern", "names"),
    [
        ("*.txt", ["a.txt", "sub/b.txt"]),
        ("sub/*", ["sub/b.txt", "sub/c.log"]),
        ("*.log", ["sub/c.log"]),
    ],
)
def test_a_pattern_names_the_files_of_a_folder(
    tmp_path: Path, pattern: str, names: list[str]
) -> None:
    for name in ("a.txt", "d.md", "sub/b.txt", "sub/c.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    assert list(contents(sources.own_text(tmp_path, files=pattern))) == names


def test_a_pattern_that_fits_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    with pytest.raises(DataError, match=r"holds no file like \*\.jsonl"):
        sources.own_text(tmp_path, files="*.jsonl")


def test_the_named_column_is_the_text(tmp_path: Path) -> None:
    table(tmp_path / "a.jsonl", ["One"], "story")
    assert contents(sources.own_text(tmp_path / "a.jsonl", column="story")) == {"a.jsonl:1": "One"}


def test_stories_are_the_texts_between_separators(tmp_path: Path) -> None:
    text = "Once upon a time.\n<|endoftext|>\n\nA second\n\nstory.\n<|endoftext|>\n"
    (tmp_path / "valid.txt").write_text(text, encoding="utf-8")
    source = sources.stories([tmp_path / "valid.txt"], "")
    assert list(contents(source).values()) == ["Once upon a time.", "A second\n\nstory."]
