"""Where texts come from: written on the spot, downloaded, or the user's own.

A `Source` is documents that can be read more than once, in parts. splitting.py divides one into
training, validation and test; readers.py reads files, downloads.py gets them. Nothing here holds
more than a document in memory, except lists of names and of files.
"""

import fnmatch
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gpt.corpus.downloads import Download, hash_of_all
from gpt.corpus.readers import (
    Document,
    held,
    is_table,
    is_text,
    read_documents,
    read_text,
    separated,
)
from gpt.errors import DataError, unreadable
from gpt.files import sha256_of
from verse import grammar as verse


@dataclass(frozen=True)
class Source:
    """Texts, and what corpus.json says of them. `documents` may be iterated more than once.

    `count` is None where only reading tells how many there are.
    """

    count: int | None
    documents: Callable[[], Iterator[Document]]
    facts: dict[str, Any] = field(default_factory=dict)


SHAKESPEARE = Download(
    "shakespeare.txt",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)
NAMES = Download(
    "names.txt",
    "https://raw.githubusercontent.com/karpathy/makemore/master/names.txt",
    "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
)
# Of what follows no hash is pinned: data.sha256 in params.yaml is where one is held to.
TINYSTORIES = [
    Download(
        f"TinyStoriesV2-GPT4-{part}.txt",
        "https://huggingface.co/datasets/roneneldan/TinyStories/resolve/main/"
        f"TinyStoriesV2-GPT4-{part}.txt",
        size=size,
    )
    for part, size in (("train", 2_230_000_000), ("valid", 22_500_000))
]
# The web pages of GPT-2's kind, in 80 parts of about 500 MB of text.
OPENWEBTEXT = [
    Download(
        f"openwebtext/train-{shard:05d}-of-00080.parquet",
        "https://huggingface.co/datasets/Skylion007/openwebtext/resolve/main/plain_text/"
        f"train-{shard:05d}-of-00080.parquet",
        size=310_000_000,
    )
    for shard in range(80)
]
# nanochat's shards, shuffled, of about 250 million characters each.
FINEWEB_EDU = [
    Download(
        f"fineweb_edu/shard_{shard:05d}.parquet",
        "https://huggingface.co/datasets/karpathy/fineweb-edu-100b-shuffle/resolve/main/"
        f"shard_{shard:05d}.parquet",
        size=100_000_000,
    )
    for shard in range(1823)
]


def named(corpus: str, source: Source) -> Source:
    """The same documents under names that tell them from those of other sources.

    Without what is known of their distribution, which is not that of the whole.
    """

    def documents() -> Iterator[Document]:
        for document in source.documents():
            yield Document(f"{corpus}/{document.name}", document.parts)

    return replace(source, documents=documents)


def verse_plays(size: int, seed: int) -> Source:
    """About `size` bytes of verse: so many plays, whatever they turn out to say.

    Their number is fixed beforehand. Were it chosen by their length, the text would carry
    information that information_bits does not count.
    """
    count = max(2, round(size / verse.PLAY_BYTES))

    def documents() -> Iterator[Document]:
        for index in range(count):
            play = verse.write_play(seed, index)
            yield Document(f"play-{index}", held(play.text), play.information_bits)

    return Source(count, documents, {"seed": seed})


def single_text(path: Path) -> Source:
    """One text file as one document."""
    name, digest = _name(path, path.parent), _sha256_of(path)
    return Source(1, lambda: iter([Document(name, lambda: read_text(path))]), {"sha256": digest})


def name_list(path: Path) -> Source:
    """Every distinct line as one document, in the order in which they first appear."""
    lines = "".join(read_text(path)).split("\n")
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    facts = {
        "sha256": _sha256_of(path),
        "duplicates_removed": sum(1 for line in lines if line.strip()) - len(names),
    }
    return Source(
        len(names),
        lambda: (Document(str(index), held(name)) for index, name in enumerate(names)),
        facts,
    )


def stories(paths: list[Path], sha256: str) -> Source:
    """The stories of TinyStories, which <|endoftext|> separates."""

    def documents() -> Iterator[Document]:
        for path in paths:
            yield from separated(path, "<|endoftext|>", path.stem)

    return Source(None, documents, {"sha256": sha256})


def tables(paths: list[Path], sha256: str) -> Source:
    """The rows of tables whose text stands in the column `text`."""

    def documents() -> Iterator[Document]:
        for path in paths:
            yield from read_documents(path, path.stem, "text")

    return Source(None, documents, {"sha256": sha256, "shards": len(paths)})


def own_text(
    path: Path, sha256: str | None = None, *, files: str = "*", column: str = "text"
) -> Source:
    """A file, or the files below a folder whose path there matches the pattern `files`.

    Which of them are one document, and which have one in each row of `column`, readers.py tells;
    `*` alone means those that it reads, any other pattern exactly what it names. Names that start
    with a dot are passed over. Raises DataError, naming the path, where there is no text.
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
        found = {_name(path, path.parent): path}
        whole, facts = _sha256_of(path), {}
    else:
        found, passed_over = _files_below(path, files)
        if not found:
            wanted = "text (txt, md, jsonl, csv, parquet)" if files == "*" else f"file like {files}"
            raise DataError(f"{path}: holds no {wanted}; put one there, or set data.path")
        whole = hash_of_all({name: _sha256_of(file) for name, file in found.items()})
        facts = {"files": len(found), "files_passed_over": passed_over}
    if sha256 is not None and whole != sha256:
        raise DataError(f"{path}: its sha256 is {whole}, not the data.sha256 of params.yaml")

    def documents() -> Iterator[Document]:
        for name, file in found.items():
            yield from read_documents(file, name, column)

    count = None if any(is_table(file) for file in found.values()) else len(found)
    return Source(count, documents, {"sha256": whole, **facts})


def _files_below(folder: Path, pattern: str) -> tuple[dict[str, Path], int]:
    """The files wanted below a folder by name, sorted; how many others there are.

    Links to folders are not followed.
    """

    def refuse(error: OSError) -> None:
        raise unreadable(Path(error.filename), error)

    paths: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(parent, name) for name in names if not name.startswith(".")]
    wanted: dict[str, Path] = {}
    for path in sorted(paths):
        if pattern != "*" or is_text(path):
            name = _name(path, folder)
            if fnmatch.fnmatchcase(name, pattern):
                wanted[name] = path
    return wanted, len(paths) - len(wanted)


def _sha256_of(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise unreadable(path, error) from None


def _name(file: Path, folder: Path) -> str:
    name = file.relative_to(folder).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(f"{str(file)!a}: its name is not UTF-8; rename it") from None
    return name
