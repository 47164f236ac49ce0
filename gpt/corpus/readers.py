"""Reading the documents of files: plain text, compressed text, or a text in each row of a table.

    .txt .md                one document; so is any other file that the user names
    .jsonl .csv .parquet    a document in each row, in the column that data.column names
    .gz .zst                any of these but parquet, compressed

The suffix decides. At most one document of a table, or one chunk of any other file, is in memory.
The encoding is UTF-8 everywhere; anything else is refused with its file and byte.
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
    """One text: its name, a way to read it in chunks, and its information where it is known."""

    name: str
    chunks: Callable[[], Iterator[str]]
    information_bits: float | None = None


def in_memory(name: str, text: str, information_bits: float | None = None) -> Document:
    """Returns a document whose text is in memory."""
    return Document(name, lambda: iter([text]), information_bits)


def read_documents(path: Path, name: str, column: str) -> Iterator[Document]:
    """Yields the documents of a file, called `name`, or `name:row` in a table.

    `column` holds the text of a table. Raises DataError, naming the file and the byte or row, for
    content that does not fit the suffix.
    """
    rows = TABLES.get(suffix_of(path))
    if rows is None:
        yield Document(name, partial(read_text, path))
        return
    for number, text in rows(path, column):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{path}: row {number}, character {error.start} is half of a surrogate pair; "
                "fix or remove that row"
            ) from None
        yield in_memory(f"{name}:{number}", text)


def read_text(path: Path) -> Iterator[str]:
    """Yields the text of a UTF-8 file in chunks, unchanged but for a byte order mark.

    A compressed file gives the text inside. Raises DataError with the byte offset (in that text)
    if it is not UTF-8, and if a compressed file is damaged.
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


def read_separated(path: Path, separator: str) -> Iterator[Document]:
    """Yields the documents between `separator` in a text file, without line breaks around them."""
    number, rest = 0, ""
    for chunk in read_text(path):
        *texts, rest = (rest + chunk).split(separator)
        for text in texts:
            number += 1
            yield in_memory(f"{path.stem}:{number}", text.strip("\n"))
    if rest.strip():
        yield in_memory(f"{path.stem}:{number + 1}", rest.strip("\n"))


def suffix_of(path: Path) -> str:
    """Returns '.jsonl' for a.jsonl and for a.jsonl.gz."""
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
    """Yields lines with their \\n; Unicode's other line breaks may be inside JSON strings."""
    rest = ""
    for chunk in read_text(path):
        *lines, last = chunk.split("\n")
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
            fields = json.loads(line)
        except (ValueError, RecursionError):
            raise DataError(
                f"{path}: line {number} is not JSON; put one object on each line"
            ) from None
        if not isinstance(fields, dict):
            raise DataError(
                f'{path}: line {number} is not a JSON object; write {{"{column}": "..."}}'
            )
        yield number, _value(path, number, fields, column)


def _csv(path: Path, column: str) -> Iterator[tuple[int, str]]:
    csv.field_size_limit(FIELD_CHARACTERS)
    # strict: a quote that is never closed would otherwise swallow the rest of the file.
    reader = csv.DictReader(_lines(path), strict=True)
    try:
        for number, fields in enumerate(reader, start=1):
            yield number, _value(path, number, fields, column)
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.reader.line_num}: {error}; fix that line") from None


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
            f"{path}: row {number}: byte {error.start} of {column} is not UTF-8; fix that row"
        ) from None
    except pyarrow.ArrowException as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: after row {number}: {reason}; get the file again") from None
    except OSError as error:
        raise unreadable(path, error) from None


def _value(path: Path, number: int, fields: dict[str, Any], column: str) -> str:
    try:
        value = fields[column]
    except KeyError:
        raise _no_column(path, column, [key for key in fields if key]) from None
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"{path}: row {number}: {column} is {type(value).__name__}, not text; "
            "set data.column to a column of text"
        )
    return value


def _no_column(path: Path, column: str, columns: list[str]) -> DataError:
    known = ", ".join(columns[:10]) or "none"
    return DataError(f"{path}: no column {column!r} (it has: {known}); set data.column")


Rows = Callable[[Path, str], Iterator[tuple[int, str]]]
TABLES: dict[str, Rows] = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
