"""Reading a text file, compressed or not, in chunks and in the encoding that data.encoding names.

What is no text is refused by what it is, and text in another encoding with the likely one.
"""

import codecs
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, cast

from gpt.errors import DataError, unreadable

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
READ_BYTES = 2**18
# What a file begins with, wherever its name suggests text.
SIGNATURES = {
    b"PK\x03\x04": "a zip archive (docx, xlsx and epub are such); unpack it, or save it as text",
    b"%PDF": "a PDF; save its text as UTF-8",
    b"\x1f\x8b": "compressed by gzip; give it a name that ends in .gz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; give it a name that ends in .zst",
    b"BZh": "compressed by bzip2; unpack it",
    b"\xfd7zXZ": "compressed by xz; unpack it",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"Rar!": "a rar archive; unpack it",
    b"PAR1": "parquet; give it a name that ends in .parquet",
    b"SQLite format 3": "a SQLite database; export its text",
    b"\xd0\xcf\x11\xe0": "an Office document (doc, xls); save it as text",
    b"{\\rtf": "rich text; save it as plain text",
    b"\x89PNG": "a picture (PNG); leave it out",
    b"\xff\xd8\xff": "a picture (JPEG); leave it out",
    b"GIF8": "a picture (GIF); leave it out",
}
TAR_SIGNATURE = slice(257, 262), b"ustar"


def read_text(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """Yields the text of a file in chunks, unchanged but for a byte order mark.

    A compressed file gives the text inside. Raises DataError, with the byte offset (in that text),
    for what is not in `encoding` or holds the character NUL, and if a compressed file is damaged.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    offset, is_first = 0, True
    where = "of the text inside " if path.suffix.lower() in COMPRESSIONS else ""
    try:
        with closing(_opened(path)) as file:
            while True:
                block = file.read(READ_BYTES)
                if not offset:
                    _refuse_other_kinds(path, block)
                pending = len(decoder.getstate()[0])
                try:
                    text = decoder.decode(block, final=not block)
                except UnicodeError as error:
                    # Python's UTF-16 has no position for a missing byte order mark: the first byte.
                    at = offset - pending + getattr(error, "start", 0)
                    raise DataError(
                        f"{path}: byte {at} {where}is not {encoding.upper()}; "
                        f"{_remedy(block, encoding)}"
                    ) from None
                if "\0" in text:
                    at = offset - pending + len(text[: text.index("\0")].encode(encoding))
                    at -= len("".encode(encoding)) if offset else 0  # a byte order mark
                    raise DataError(
                        f"{path}: byte {at} {where}is NUL, which no text has; "
                        f"{_remedy(block, encoding)}"
                    )
                if is_first and text:
                    text, is_first = text.removeprefix("\ufeff"), False
                if text:
                    yield text
                if not block:
                    return
                offset += len(block)
    except OSError as error:
        raise unreadable(path, error) from None


def _refuse_other_kinds(path: Path, start: bytes) -> None:
    for signature, kind in SIGNATURES.items():
        if start.startswith(signature):
            raise DataError(f"{path}: not text but {kind}")
    position, signature = TAR_SIGNATURE
    if start[position] == signature:
        raise DataError(f"{path}: not text but a tar archive; unpack it")


def _remedy(block: bytes, encoding: str) -> str:
    """What to do about bytes that are not of the encoding: it may be another one."""
    even, odd = block[::2].count(0), block[1::2].count(0)
    if block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        likely = "utf-16"
    elif max(even, odd) > len(block) // 8:
        likely = "utf-16-le" if odd > even else "utf-16-be"
    elif even or odd:
        return "leave the file out if it is not text"
    else:
        likely = "cp1252"  # what Windows calls ANSI; most other texts of western Europe
    if codecs.lookup(likely).name == codecs.lookup(encoding).name:
        return "set data.encoding to the encoding of the file, or save it as UTF-8"
    return f"save the file as UTF-8, or set data.encoding to its encoding (likely: {likely})"


def _opened(path: Path) -> BinaryIO:
    compression = COMPRESSIONS.get(path.suffix.lower())
    if compression is None:
        return path.open("rb")
    # Imported here: only compressed files and parquet pay for it.
    import pyarrow

    return cast(BinaryIO, pyarrow.CompressedInputStream(path.open("rb"), compression))
