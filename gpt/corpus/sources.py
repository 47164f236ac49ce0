"""Sources: texts as documents that can be read more than once, in chunks.

The functions here make one of files: a single text, a list of names, stories, tables, or the user's
own file or folder. At most one document is in memory, besides lists of names and of files.
"""

import fnmatch
import os
import stat
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from gpt.corpus import readers
from gpt.corpus.readers import Document, in_memory, read_documents, read_separated
from gpt.corpus.tables import TABLES
from gpt.corpus.text_files import read_text
from gpt.errors import DataError, unreadable
from gpt.files import sha256_of, sha256_of_all


@dataclass(frozen=True)
class Source:
    """Documents, and what corpus.json states of them. `documents` may be iterated more than once.

    `count` is None if only reading tells how many there are.
    """

    count: int | None
    documents: Callable[[], Iterator[Document]]
    metadata: dict[str, Any] = field(default_factory=dict)


def with_prefix(corpus: str, source: Source) -> Source:
    """Returns `source` with `corpus/` before each document's name, for a mixture of sources.

    Without information_bits: a mixture is not distributed as any of its sources.
    """

    def documents() -> Iterator[Document]:
        for document in source.documents():
            yield Document(f"{corpus}/{document.name}", document.chunks)

    return replace(source, documents=documents)


def single_text(path: Path) -> Source:
    """Returns a text file as one document."""
    document = Document(_name(path, path.parent), lambda: read_text(path))
    return Source(1, lambda: iter([document]), {"sha256": _sha256_of(path)})


def name_list(path: Path) -> Source:
    """Returns each distinct line of a file as one document, in order of first appearance."""
    lines = [line.strip() for line in "".join(read_text(path)).split("\n") if line.strip()]
    names = list(dict.fromkeys(lines))
    return Source(
        len(names),
        lambda: (in_memory(str(index), name) for index, name in enumerate(names)),
        {"sha256": _sha256_of(path), "duplicates_removed": len(lines) - len(names)},
    )


def stories(paths: list[Path], sha256: str) -> Source:
    """Returns the stories of TinyStories, which <|endoftext|> separates."""

    def documents() -> Iterator[Document]:
        return chain.from_iterable(read_separated(path, "<|endoftext|>") for path in paths)

    return Source(None, documents, {"sha256": sha256})


def tables(paths: list[Path], sha256: str) -> Source:
    """Returns the rows of tables, whose text is in the column `text`."""

    def documents() -> Iterator[Document]:
        return chain.from_iterable(read_documents(path, path.stem, "text") for path in paths)

    return Source(None, documents, {"sha256": sha256, "shards": len(paths)})


def own_text(
    path: Path,
    sha256: str | None = None,
    *,
    files: str = "*",
    column: str = "text",
    encoding: str = "utf-8",
) -> Source:
    """Returns a file, or the files below a folder whose relative path matches the pattern `files`.

    Of a folder, `*` means the files that readers.py knows; any other pattern means exactly what it
    matches. Names that start with a dot are skipped. Raises DataError, naming the path, if there is
    no text or the hash is not `sha256`.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{path}: no such file or folder; set data.path to where your text is"
        ) from None
    except OSError as error:
        raise unreadable(path, error) from None
    if stat.S_ISREG(mode):
        paths = {_name(path, path.parent): path}
        actual, counts = _sha256_of(path), {}
    else:
        paths, skipped = _files_below(path, files)
        if not paths:
            raise _nothing_to_read(path, files, skipped)
        actual = sha256_of_all({name: _sha256_of(file) for name, file in paths.items()})
        counts = {"files": len(paths), "files_passed_over": skipped}
    if sha256 is not None and actual != sha256:
        raise DataError(
            f"data.sha256 = {sha256}: the sha256 of {path} is {actual}; "
            "correct data.sha256, or restore the text"
        )

    def documents() -> Iterator[Document]:
        for name, file in paths.items():
            yield from read_documents(file, name, column, encoding)

    # Only reading tells how many documents a table has.
    has_table = any(readers.suffix_of(file) in TABLES for file in paths.values())
    return Source(None if has_table else len(paths), documents, {"sha256": actual, **counts})


def _nothing_to_read(folder: Path, files: str, skipped: int) -> DataError:
    others = f", but {skipped} other files" if skipped else ""
    if files != "*":
        return DataError(
            f"{folder}: holds no file like {files}{others}; correct data.files or data.path"
        )
    return DataError(
        f"{folder}: holds no txt, md, jsonl, json, csv, tsv or parquet{others}; set data.path, "
        "or name other files of text in data.files, such as '*.py'"
    )


def _files_below(folder: Path, pattern: str) -> tuple[dict[str, Path], int]:
    """Returns the matching files below a folder by name, sorted, and the number of the others.

    Links to folders are followed, after the folders themselves, and no folder is read twice. `**/`
    matches no folder too.
    """

    def refuse(error: OSError) -> None:
        raise unreadable(Path(error.filename), error)

    paths: list[Path] = []
    waiting, seen = [folder], set()
    while waiting:
        for parent, folders, names in os.walk(waiting.pop(0), onerror=refuse):
            real = os.path.realpath(parent)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            waiting += [Path(parent, name) for name in folders if Path(parent, name).is_symlink()]
            paths += [Path(parent, name) for name in names if not name.startswith(".")]
    known = (*readers.PLAIN_SUFFIXES, *TABLES)
    texts = [path for path in paths if pattern != "*" or readers.suffix_of(path) in known]
    pattern = unicodedata.normalize("NFC", pattern)
    matches: dict[str, Path] = {}
    for path in texts:
        name = _name(path, folder)
        if any(fnmatch.fnmatchcase(name, each) for each in (pattern, pattern.replace("**/", ""))):
            if name in matches:
                raise DataError(f"{path}: there is a second file of that name; rename one")
            matches[name] = path
    # Paths themselves are sorted without regard to case on Windows.
    ordered = sorted(matches, key=lambda name: name.split("/"))
    return {name: matches[name] for name in ordered}, len(paths) - len(matches)


def _sha256_of(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise unreadable(path, error) from None


def _name(file: Path, folder: Path) -> str:
    # macOS may store "ä" as two characters, and other systems as one.
    name = unicodedata.normalize("NFC", file.relative_to(folder).as_posix())
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(f"{str(file)!a}: its name is not UTF-8; rename it") from None
    return name
