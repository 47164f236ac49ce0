"""Files of every kind are read as the documents they hold, or refused by file and position."""

import csv
import gzip
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import planted
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from small_corpus import joined, written

from gpt.corpus import readers, sources, text_files
from gpt.corpus.text_files import READ_BYTES
from gpt.errors import DataError

TEXTS = ["Once upon a time", "é€😀\r\n\u2028 line", 'a "quoted", word', "\x85\x1c\f"]
# What every kind of table can hold: no NUL and no lone \r in csv, no empty row.
ROWS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1))


def jsonl(rows: list[str], column: str = "text") -> bytes:
    return "".join(json.dumps({"id": 7, column: text}) + "\n" for text in rows).encode()


def zstd(raw: bytes) -> bytes:
    return pyarrow.Codec("zstd").compress(raw).to_pybytes()


def write_csv(path: Path, rows: list[str], column: str = "text") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["id", column], *([7, text] for text in rows)])


def write_parquet(path: Path, rows: list[object], column: str = "text") -> None:
    parquet.write_table(pyarrow.table({"id": [7] * len(rows), column: rows}), path)


def read(path: Path, column: str = "text") -> dict[str, str]:
    documents = readers.read_documents(path, path.name, column)
    return {document.name: "".join(document.chunks()) for document in documents}


def make(folder: Path, name: str, rows: list[str], column: str = "text") -> Path:
    """A table of `rows`, of the kind that the name says."""
    path = folder / name
    if name.endswith(".csv"):
        write_csv(path, rows, column)
    elif name.endswith(".parquet"):
        write_parquet(path, rows, column)
    else:
        compress = {"gz": gzip.compress, "st": zstd}.get(name[-2:].lower(), bytes)
        path.write_bytes(compress(jsonl(rows, column)))
    return path


TABLES = ["t.jsonl", "t.csv", "t.parquet", "t.jsonl.gz", "T.JSONL.ZST"]


@pytest.mark.parametrize("name", TABLES)
def test_each_row_of_a_table_is_a_document_named_by_its_number(tmp_path: Path, name: str) -> None:
    path = make(tmp_path, name, TEXTS, "story")
    assert read(path, "story") == {f"{name}:{n}": text for n, text in enumerate(TEXTS, start=1)}


@given(rows=ROWS)
def test_any_text_comes_back_from_any_table(rows: list[str]) -> None:
    with TemporaryDirectory() as folder:
        for name in ("t.jsonl", "t.csv", "t.parquet"):
            assert list(read(make(Path(folder), name, rows)).values()) == rows


@pytest.mark.parametrize("name", ["a.txt.gz", "a.md.zst", "a.gz", "a.zst"])
@pytest.mark.parametrize("text", ["", "One é\r\n", "\ufeffmarked", "x" * 600_000])
def test_a_compressed_text_is_the_text_inside(tmp_path: Path, name: str, text: str) -> None:
    compress = gzip.compress if name.endswith("gz") else zstd
    (tmp_path / name).write_bytes(compress(text.encode()))
    assert read(tmp_path / name) == {name: text.removeprefix("\ufeff")}


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_compressed_files_put_together_are_read_to_the_end(
    tmp_path: Path, compress: object
) -> None:
    path = tmp_path / ("a.gz" if compress is gzip.compress else "a.zst")
    path.write_bytes(compress(b"one ") + compress(b"two"))
    assert read(path) == {path.name: "one two"}


@pytest.mark.parametrize("name", ["a.gz", "a.zst"])
@pytest.mark.parametrize("fault", ["cut", "flipped", "plain"])
def test_a_damaged_compressed_file_is_refused_by_name(
    tmp_path: Path, name: str, fault: str
) -> None:
    raw = bytearray((gzip.compress if name == "a.gz" else zstd)(b"To be, or not to be" * 100))
    if fault == "cut":
        raw = raw[:-10]
    elif fault == "flipped":
        raw[2] ^= 255
    else:
        raw = bytearray(b"To be, or not to be")
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(DataError, match=rf"{name}: .*; check the path"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt.gz", "a.jsonl.zst"])
@pytest.mark.parametrize("before", [20, 300_000])
def test_bytes_that_are_not_utf8_are_named_in_tables_and_archives_too(
    tmp_path: Path, name: str, before: int
) -> None:
    head = b'{"text": "' if "jsonl" in name else b"text\n"
    raw = head + b"x" * (before - len(head)) + b'\xe9"}\n'
    compress = {"gz": gzip.compress, "st": zstd}.get(name[-2:], bytes)
    (tmp_path / name).write_bytes(compress(raw))
    with pytest.raises(DataError, match=rf"{name}: byte {before} (of the text inside )?is not UTF"):
        read(tmp_path / name)


def test_parquet_that_is_not_utf8_is_refused_by_row(tmp_path: Path) -> None:
    table = pyarrow.table({"text": pyarrow.array([b"fine", b"caf\xe9"]).view(pyarrow.string())})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: row 2: byte 3 of text is not UTF"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", TABLES)
def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path, name: str) -> None:
    path = make(tmp_path, name, TEXTS, "story")
    with pytest.raises(DataError, match=r"no column 'text' \(it has: 'id', 'story'\); set"):
        read(path)


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
def test_a_column_that_is_no_text_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="row 1: id is int, not text"):
        read(make(tmp_path, name, TEXTS), "id")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "a"', "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),
        ('["text"]', "line 2 is not a JSON object"),
        ('"text"', "line 2 is not a JSON object"),
        (r'{"text": "\ud800"}', "row 2, character 0 is half of a surrogate pair"),
    ],
)
def test_a_line_that_is_no_document_is_named(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "a"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(DataError, match=rf"a\.jsonl: {said}"):
        read(tmp_path / "a.jsonl")


def test_a_quote_that_is_never_closed_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text\nfine\n"never closed\nmore\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.csv: line 4: unexpected end of data"):
        read(tmp_path / "a.csv")


def test_a_csv_field_may_be_longer_than_a_read_block(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["x\n" * 300_000])
    assert read(tmp_path / "a.csv") == {"a.csv:1": "x\n" * 300_000}


@pytest.mark.parametrize("raw", [b"", b"PAR1", b"<html>sorry</html>"])
def test_a_parquet_file_that_is_none_is_refused_by_name(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.parquet: "):
        read(tmp_path / "a.parquet")


def test_rows_without_a_text_are_empty_documents(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", ["a", None])
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n\n{"text": null}\n', encoding="utf-8")
    for name in ("a.parquet", "a.jsonl"):
        assert list(read(tmp_path / name).values()) == ["a", ""]


@given(stories=st.lists(st.text(alphabet="ab<|é", min_size=1, max_size=9)), size=st.integers(1, 50))
def test_separated_documents_come_whole_however_they_are_read(
    stories: list[str], size: int
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "READ_BYTES", size)
        path = Path(folder, "a.txt")
        path.write_text("\n<|end|>\n".join(stories) + "\n<|end|>\n", encoding="utf-8")
        documents = readers.read_separated(path, "<|end|>")
        expected = path.read_text(encoding="utf-8").split("<|end|>")[:-1]
        assert ["".join(story.chunks()) for story in documents] == [s.strip("\n") for s in expected]


@pytest.mark.fault(16, planted=planted.LINE_BREAKS_CHANGED)
@pytest.mark.fault(17)
@pytest.mark.parametrize(
    "text", ["one\r\ntwo\r\n", "\x1a\f\x85\u2028\u2029", "é€😀", "<|endoftext|>", "a\rb"]
)
def test_text_is_in_the_corpus_unchanged(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode())
    chunks = written(tmp_path / "corpus", sources.own_text(tmp_path / "a.txt"))
    assert joined(chunks["train"]) + joined(chunks["val"]) == text


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
