"""A text file is read in its encoding; what is none is refused by what it is."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from gpt.corpus.text_files import READ_BYTES, read_text
from gpt.errors import DataError

WINDOWS = "Zoë said: “naïve café…”\r\n"


def read(folder: Path, content: bytes, encoding: str = "utf-8", name: str = "a.txt") -> str:
    (folder / name).write_bytes(content)
    return "".join(read_text(folder / name, encoding))


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
@pytest.mark.parametrize("times", [1, READ_BYTES // 20])
def test_a_declared_encoding_is_read(tmp_path: Path, encoding: str, times: int) -> None:
    assert read(tmp_path, (WINDOWS * times).encode(encoding), encoding) == WINDOWS * times


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, encoding: str) -> None:
    assert read(tmp_path, ("\ufeff" + WINDOWS).encode(encoding), encoding) == WINDOWS


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ("cp1252", r"a.txt: byte 2 is not UTF-8; save .* \(likely: cp1252\)"),
        ("utf-16", r"a.txt: byte 0 is not UTF-8; save .* \(likely: utf-16\)"),
        ("utf-16-le", r"a.txt: byte 4 is not UTF-8; save .* \(likely: utf-16-le\)"),
        ("utf-16-be", r"a.txt: byte .*likely: utf-16-be\)"),
    ],
)
def test_an_undeclared_encoding_is_refused_with_the_likely_one(
    tmp_path: Path, written: str, line: str
) -> None:
    with pytest.raises(DataError, match=line):
        read(tmp_path, WINDOWS.encode(written))


@pytest.mark.parametrize("start", [0, READ_BYTES])
def test_utf16_without_a_mark_is_refused_by_its_first_nul(tmp_path: Path, start: int) -> None:
    content = b"x" * start + "plain".encode("utf-16-le") * READ_BYTES
    with pytest.raises(DataError, match=rf"byte {start + 1} is NUL.*likely: utf-16-le"):
        read(tmp_path, content)


def test_a_wrong_encoding_that_was_declared_is_not_advised_again(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"is not WINDOWS-1252; set data.encoding to the encoding of"
    ):
        read(tmp_path, b"\x81", "windows-1252")


@pytest.mark.parametrize("blocks", [0, 1])
def test_nul_is_named_by_its_byte_in_other_encodings_too(tmp_path: Path, blocks: int) -> None:
    text = "x" * (blocks * READ_BYTES // 2) + "a\0"
    with pytest.raises(DataError, match=rf"byte {2 + blocks * READ_BYTES + 2} is NUL"):
        read(tmp_path, text.encode("utf-16"), "UTF-16")


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "text")
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "name", "line"),
    [
        (zipped(), "poems.zip", r"poems.zip: not text but a zip archive .*; unpack it"),
        (zipped(), "essay.docx", "zip archive"),
        (tarred(), "poems.tar", "poems.tar: not text but a tar archive; unpack it"),
        (
            gzip.compress(tarred(), mtime=0),
            "poems.tar.gz",
            "poems.tar.gz: not text but a tar archive",
        ),
        (gzip.compress(b"text", mtime=0), "poems.txt", "compressed by gzip; give it a name"),
        (b"%PDF-1.7\n", "poems.pdf", "a PDF; save its text"),
        (b"PAR1\x15\x04", "rows.txt", "parquet; give it a name"),
        (b"\x89PNG\r\n", "scan.txt", "a picture"),
        (b"text\0with one", "a.txt", "byte 4 is NUL, .*; leave the file out if it is not text"),
    ],
)
def test_what_is_no_text_is_refused_by_what_it_is(
    tmp_path: Path, content: bytes, name: str, line: str
) -> None:
    with pytest.raises(DataError, match=line):
        read(tmp_path, content, name=name)
