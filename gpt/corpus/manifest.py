"""Reading a corpus from disk: jsonl files of documents, and the manifest that describes them.

    train.jsonl val.jsonl test.jsonl    {"doc": "play-7", "text": "..."}, one chunk per line
    train-00000.jsonl ...               in place of train.jsonl: a split of a gigabyte or more, or
                                        of several sources
    corpus.json                         source, split, and for each split documents, characters,
                                        bytes, sha256, and information_bits where it is known;
                                        for val and test also how many documents are in train

A long document is several consecutive lines of the same `doc`, so that no reader needs more than a
chunk in memory. The manifest of the tokens, tokens.json, lists its shards in the same way.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from gpt.errors import damaged
from gpt.files import read_json, sha256_of

SPLITS = ("train", "val", "test")
FORMAT = 1
READ_BYTES = 2**22


@dataclass(frozen=True)
class Shard:
    """One file of a split. `continues`: its first chunk belongs to the document before it.

    `corpus` names its source if the split has several, and is empty otherwise.
    """

    path: Path
    sha256: str
    continues: bool = False
    corpus: str = ""


def split_entry(manifest: Path, split: str) -> dict[str, Any]:
    """Returns what a manifest states of a split, its sha256 included. Raises DataError."""
    splits = read_json(manifest).get("splits")
    entry = splits.get(split) if isinstance(splits, dict) else None
    if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str):
        raise damaged(manifest, f"does not describe {split}")
    return entry


def shard_entries(manifest: Path, split: str, entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns what a manifest states of each shard of a split. Raises DataError."""
    entries = entry["shards"]
    if not isinstance(entries, list) or not entries:
        raise damaged(manifest, f"does not list the files of {split}")
    for number, shard in enumerate(entries):
        # Only the names that we write, so that none leads out of the folder.
        stem = f"{split}-{number:05d}"
        if not (
            isinstance(shard, dict)
            and isinstance(shard.get("sha256"), str)
            and shard.get("file") in (f"{stem}.jsonl", f"{stem}.npy")
            and isinstance(shard.get("continues", False), bool)
            and isinstance(shard.get("corpus", ""), str)
        ):
            raise damaged(manifest, f"does not describe file {number} of {split}")
    return entries


def shards_of(folder: Path, split: str) -> list[Shard]:
    """Returns the files of `split` in order, as corpus.json lists them. Raises DataError."""
    manifest = folder / "corpus.json"
    entry = split_entry(manifest, split)
    if "shards" not in entry:
        return [Shard(folder / f"{split}.jsonl", entry["sha256"])]
    return [
        Shard(folder / shard["file"], shard["sha256"], shard["continues"], shard.get("corpus", ""))
        for shard in shard_entries(manifest, split, entry)
    ]


def read_chunks(folder: Path, split: str) -> Iterator[tuple[str, str]]:
    """Yields (doc, text) for each chunk of `split`, in order.

    Raises DataError at a line that CorpusWriter cannot have written, and at the end of a file
    whose sha256 is not the manifest's.
    """
    for shard in shards_of(folder, split):
        yield from read_shard(shard)


def read_shard(shard: Shard) -> Iterator[tuple[str, str]]:
    """Does what `read_chunks` does, for one file of a split."""
    path = shard.path
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for number, line in enumerate(_lines(file, digest), start=1):
                try:
                    chunk = orjson.loads(line)
                    doc, text = chunk["doc"], chunk["text"]
                except (ValueError, KeyError, TypeError):
                    raise damaged(path, f"line {number} is not a document") from None
                if not (isinstance(doc, str) and isinstance(text, str)):
                    raise damaged(path, f"line {number} is not a document")
                yield doc, text
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from None
    if digest.hexdigest() != shard.sha256:
        raise damaged(path, "its sha256 is not the one in corpus.json")


def _lines(file: IO[bytes], digest: "hashlib._Hash") -> Iterator[bytes]:
    """Yields the lines of a file without their line breaks; `digest` gets all of its bytes."""
    rest = b""
    # In large blocks: for short lines the calls would cost more than the hashing.
    while block := file.read(READ_BYTES):
        digest.update(block)
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
    if rest:
        yield rest


def check_sha256(path: Path, expected: str) -> None:
    """Raises DataError if the bytes of `path` are not those that its manifest states."""
    try:
        actual = sha256_of(path)
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from None
    if actual != expected:
        raise damaged(path, "its sha256 is not the one in the manifest beside it")
