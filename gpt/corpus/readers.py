"""Texts in files, read in parts: plain, compressed, or in the rows of a table.

    .txt .md                one document; so is any other file that is named by hand
    .jsonl .csv .parquet    a document in each row, in the column that is asked for
    .gz .zst                any of these but parquet, compressed

The suffix decides. Nothing here holds more than a document of a table, or a part of any other. The
encoding is UTF-8 everywhere, and what is not is refused with its file and byte. This module does
not know which files are wanted, nor what becomes of the documents (gpt/corpus/sources.py).
"""

import codecs
import csv
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from gpt.errors import DataError, unreadable

PLAIN_SUFFIXES = (".txt", ".md")
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
READ_BYTES = 2**18
# As large as csv allows everywhere (a C long); its own limit is 131,072.
FIELD_CHARACTERS = 2**31 - 1


@dataclass(frozen=True)
class Document:
    """One text: its name, a way to read it in parts, and its information where it is known."""

    name: str
    parts: Callable[[], Iterator[str]]
    information_bits: float | None = None


def held(text: str) -> Callable[[], Iterator[str]]:
    """The parts of a document that is in memory anyway."""
    return lambda: iter([text])


def is_text(path: Path) -> bool:
    """Whether the suffix says that a file holds texts that this module reads."""
    return _suffix(path) in (*PLAIN_SUFFIXES, *TABLES)


def is_table(path: Path) -> bool:
    """Whether a file holds a document in each row, so that only reading tells their number."""
    return _suffix(path) in TABLES


def read_documents(path: Path, name: str, column: str) -> Iterator[Document]:
    """The documents of a file, which are called `name`, or `name` and the number of their row.

    `column` names the text in a table. Raises DataError, naming the file and the byte or row, for
    what cannot be read as its suffix says.
    """
    rows = TABLES.get(_suffix(path))
    if rows is None:
        yield Document(name, partial(read_text, path))
        return
    for number, text in rows(path, column):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{path}: row {number}, character {error.start} is half of a surrogate pair, "
                "which is no character; mend or leave out that row"
            ) from None
        yield Document(f"{name}:{number}", held(text))


def read_text(path: Path) -> Iterator[str]:
    """The text of a UTF-8 file in parts, without a byte order mark, otherwise as it stands.

    A compressed file gives the text inside. Raises DataError with the byte offset (in that text)
    where it is not UTF-8, and for a compressed file that is damaged.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    try:
        with closing(_opened(path)) as file:
            while True:
                block = file.read(READ_BYTES)
                size = len(block)
                if offset == 0:
                    block = block.removeprefix(codecs.BOM_UTF8)
                    offset = size - len(block)
                pending = len(decoder.getstate()[0])
                try:
                    text = decoder.decode(block, final=not block)
                except UnicodeDecodeError as error:
                    at = offset - pending + error.start
                    where = "of the text inside " if path.suffix.lower() in COMPRESSIONS else ""
                    raise DataError(
                        f"{path}: byte {at} {where}is not UTF-8; save the file as UTF-8"
                    ) from None
                if text:
                    yield text
                if not size:
                    return
                offset += len(block)
    except OSError as error:
        raise unreadable(path, error) from None


def separated(path: Path, separator: str, name: str) -> Iterator[Document]:
    """The documents of a text file that has `separator` between them, line breaks around it cut."""
    number, rest = 0, ""
    for part in read_text(path):
        *texts, rest = (rest + part).split(separator)
        for text in texts:
            number += 1
            yield Document(f"{name}:{number}", held(text.strip("\n")))
    if rest.strip():
        yield Document(f"{name}:{number + 1}", held(rest.strip("\n")))


def _suffix(path: Path) -> str:
    """'.jsonl' of a.jsonl and of a.jsonl.gz."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSIONS else suffix


def _opened(path: Path) -> BinaryIO:
    compression = COMPRESSIONS.get(path.suffix.lower())
    if compression is None:
        return path.open("rb")
    # Imported here: only compressed files and parquet pay for it.
    import pyarrow

    return cast(BinaryIO, pyarrow.CompressedInputStream(path.open("rb"), compression))


# --- tables ---------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[str]:
    """Lines with their line break, which is \\n alone: JSON may hold what Unicode calls one."""
    rest = ""
    for part in read_text(path):
        *lines, last = part.split("\n")
        if lines:
            yield rest + lines[0] + "\n"
            for line in lines[1:]:
                yield line + "\n"
            rest = last
        else:
            rest += last
    if rest:
        yield rest


def _jsonl(path: Path, column: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(_lines(path), start=1):
        if line.isspace():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise DataError(f"{path}: line {number} is not JSON; one object a line") from None
        if not isinstance(row, dict):
            raise DataError(f'{path}: line {number} is not an object like {{"{column}": "..."}}')
        yield number, _value(path, number, row, column)


def _csv(path: Path, column: str) -> Iterator[tuple[int, str]]:
    csv.field_size_limit(FIELD_CHARACTERS)
    # strict: a quote that is never closed would otherwise swallow the rest of the file.
    reader = csv.DictReader(_lines(path), strict=True)
    try:
        for number, row in enumerate(reader, start=1):
            yield number, _value(path, number, row, column)
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.reader.line_num}: {error}; mend that line") from None


def _parquet(path: Path, column: str) -> Iterator[tuple[int, str]]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with path.open("rb") as raw, parquet.ParquetFile(raw) as file:
            names = file.schema_arrow.names
            if column not in names:
                raise _no_column(path, column, names)
            for batch in file.iter_batches(batch_size=256, columns=[column]):
                for value in batch.column(0):
                    number += 1
                    yield number, _value(path, number, {column: value.as_py()}, column)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: row {number}: byte {error.start} of {column} is not UTF-8; mend that row"
        ) from None
    except pyarrow.ArrowException as error:
        what = " ".join(str(error).split())
        raise DataError(f"{path}: after row {number}: {what}; get the file again") from None
    except OSError as error:
        raise unreadable(path, error) from None


def _value(path: Path, number: int, row: dict[str, Any], column: str) -> str:
    try:
        value = row[column]
    except KeyError:
        raise _no_column(path, column, [key for key in row if key]) from None
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"{path}: row {number}: {column} is {type(value).__name__} and not text; "
            "name another data.column"
        )
    return value


def _no_column(path: Path, column: str, columns: list[str]) -> DataError:
    known = ", ".join(columns[:10]) or "none"
    return DataError(f"{path}: has no column {column!r} (it has: {known}); set data.column")


Rows = Callable[[Path, str], Iterator[tuple[int, str]]]
TABLES: dict[str, Rows] = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
