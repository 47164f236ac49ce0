"""Reading the text in each row of a table: jsonl, json, csv, parquet.

Yields (row, text), counted from 1. Raises DataError, naming the file and the line or row, for a row
that would lose a part of its text: it is never guessed what was meant.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from gpt.corpus.text_files import read_text
from gpt.errors import DataError, unreadable

# As large as csv allows everywhere (a C long); its own limit is 131,072.
FIELD_CHARACTERS = 2**31 - 1


def _lines(path: Path, encoding: str, newline: str) -> Iterator[str]:
    """Yields lines with their ends, which are as in `open`; Unicode's others end none."""
    unfinished: list[str] = []
    carriage_return = ""  # at the end of a chunk: the line feed after it may follow
    for chunk in read_text(path, encoding):
        text = carriage_return + chunk
        carriage_return = "\r" if newline == "" and text.endswith("\r") else ""
        for line in io.StringIO(text.removesuffix(carriage_return), newline=newline):
            unfinished.append(line)
            if line.endswith(("\n", "\r") if newline == "" else "\n"):
                yield "".join(unfinished)
                unfinished = []
    if unfinished or carriage_return:
        yield "".join([*unfinished, carriage_return])


def _jsonl(path: Path, column: str, encoding: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(_lines(path, encoding, "\n"), start=1):
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


def _json(path: Path, column: str, encoding: str) -> Iterator[tuple[int, str]]:
    """An array of objects, which is read whole; or, as many name it, one object on each line."""
    start = next((text for text in read_text(path, encoding) if not text.isspace()), "")
    if not start.lstrip().startswith("["):
        yield from _jsonl(path, column, encoding)
        return
    try:
        rows = json.loads("".join(read_text(path, encoding)))
    except (ValueError, RecursionError) as error:
        at = f"line {error.lineno}: " if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{path}: {at}not JSON; write an array of objects") from None
    for number, fields in enumerate(rows, start=1):
        if not isinstance(fields, dict):
            raise DataError(
                f'{path}: row {number} is not a JSON object; write {{"{column}": "..."}}'
            )
        yield number, _value(path, number, fields, column)


def _csv(
    path: Path, column: str, encoding: str, separators: str = ",;\t"
) -> Iterator[tuple[int, str]]:
    csv.field_size_limit(FIELD_CHARACTERS)
    lines = _lines(path, encoding, "")
    header = next(lines, "")
    separator = _separator(header, column, separators)
    # strict: a quote that is never closed would otherwise swallow the rest of the file.
    # skipinitialspace: in `id, text` a quote after a blank would else be a part of the text.
    reader = csv.reader(
        chain([header], lines),
        delimiter=separator,
        strict=True,
        skipinitialspace=any(
            name.startswith(" ") for name in next(csv.reader([header], delimiter=separator), [])
        ),
    )
    try:
        names = [name.strip() for name in next(reader, [])]
        if names.count(column) != 1:
            raise _no_column(path, column, names)
        index = names.index(column)
        for number, fields in enumerate(filter(None, reader), start=1):
            if len(fields) != len(names):
                raise DataError(
                    f"{path}: line {reader.line_num} has {len(fields)} fields, the header has "
                    f"{len(names)} ({', '.join(names)}); put quotes around a text that holds "
                    f"{separator!r}"
                )
            yield number, fields[index]
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}; fix that line") from None


def _separator(header: str, column: str, separators: str) -> str:
    """The separator that makes `column` a name of the header, or the most frequent one."""
    for separator in separators:
        if column in [name.strip().strip('"') for name in header.split(separator)]:
            return separator
    return max(separators, key=header.count)


def _parquet(path: Path, column: str, encoding: str) -> Iterator[tuple[int, str]]:
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
    if column not in fields and number > 1:
        raise DataError(
            f"{path}: row {number} has no {column!r} (it has: {_listed(list(fields))}); "
            "fix or remove that row"
        )
    if column not in fields:
        raise _no_column(path, column, list(fields))
    value = fields[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"{path}: row {number}: {column} is {type(value).__name__}, not text; "
            "set data.column to a column of text"
        )
    return value


def _no_column(path: Path, column: str, columns: list[str]) -> DataError:
    if column in columns:
        return DataError(f"{path}: the column {column!r} occurs twice; rename one")
    return DataError(f"{path}: no column {column!r} (it has: {_listed(columns)}); set data.column")


def _listed(columns: list[str]) -> str:
    return ", ".join(map(repr, columns[:10])) or "none"


Rows = Callable[[Path, str, str], Iterator[tuple[int, str]]]
TABLES: dict[str, Rows] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": partial(_csv, separators="\t"),
    ".parquet": _parquet,
}
