"""The documents of files: plain text, compressed text, or a text in each row of a table.

    .txt .md                        one document; so is any other file that the user names
    .jsonl .json .csv .tsv .parquet a document in each row, in the column that data.column names
    .gz .zst                        any of these but parquet, compressed

The suffix decides. At most one document of a table (a json array: all of them), or one chunk of any
other file, is in memory. text_files.py and tables.py read what is in the files.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gpt.corpus.tables import TABLES
from gpt.corpus.text_files import COMPRESSIONS, read_text
from gpt.errors import DataError

PLAIN_SUFFIXES = (".txt", ".md")


@dataclass(frozen=True)
class Document:
    """One text: its name, a way to read it in chunks, and its information where it is known."""

    name: str
    chunks: Callable[[], Iterator[str]]
    information_bits: float | None = None


def in_memory(name: str, text: str, information_bits: float | None = None) -> Document:
    """Returns a document whose text is in memory."""
    return Document(name, lambda: iter([text]), information_bits)


def read_documents(
    path: Path, name: str, column: str, encoding: str = "utf-8"
) -> Iterator[Document]:
    """Yields the documents of a file, called `name`, or `name:row` in a table.

    `column` holds the text of a table. Raises DataError, naming the file and the byte or row, for
    content that does not fit the suffix.
    """
    rows = TABLES.get(suffix_of(path))
    if rows is None:
        yield Document(name, partial(read_text, path, encoding))
        return
    for number, text in rows(path, column, encoding):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{path}: row {number}, character {error.start} is half of a surrogate pair; "
                "fix or remove that row"
            ) from None
        yield in_memory(f"{name}:{number}", text)


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
