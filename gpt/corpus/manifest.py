"""The corpus on disk: three files of documents, and a manifest that says what they are.

    train.jsonl val.jsonl test.jsonl    {"doc": "play-7", "text": "..."}, one part a line
    train-00000.jsonl ...               in place of train.jsonl, where it would be a gigabyte or
                                        more, or its text comes from several sources
    corpus.json                         source, split, and for each split documents, characters,
                                        bytes, sha256, and information_bits where it is known;
                                        of val and test, how many documents stand in train too

A long document stands in several consecutive lines of the same `doc`, so that no reader ever needs
more than a part in memory. This module does not know where texts come
from (gpt/corpus/sources.py) nor what tokens are.
"""

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import orjson

from gpt.errors import damaged
from gpt.files import read_json, sha256_of, write_json

SPLITS = ("train", "val", "test")
FORMAT = 1
# A file of a split that has reached so many bytes is followed by another, its next shard.
SHARD_BYTES = 2**30
# In characters; UTF-8 takes at most four bytes for one, so a part is at most 1 MiB.
PART_CHARACTERS = 2**18
# Read at once, in bytes.
BLOCK = 2**22


class CorpusWriter:
    """Writes a corpus, document by document, part by part; memory does not grow with it.

    The manifest comes last, so that a folder with corpus.json is a complete corpus.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.jsonl"):
            old.unlink()
        self.folder = folder
        self._shards: dict[str, list[_OpenShard]] = {
            split: [_OpenShard(folder / f"{split}.jsonl")] for split in SPLITS
        }
        self._corpus = ""
        self._hashes = {split: hashlib.sha256() for split in SPLITS}
        self._counts: dict[str, dict[str, Any]] = {
            split: {"documents": 0, "characters": 0, "bytes": 0} for split in SPLITS
        }
        self._last_doc: dict[str, str | None] = dict.fromkeys(SPLITS)
        # Of each document the first 64 bits of its sha256: 8 bytes a document, and two different
        # ones among ten million are taken for one with a probability below one in 100,000.
        self._documents = {split: hashlib.sha256() for split in SPLITS}
        self._digests = {split: array("Q") for split in SPLITS}

    def begin(self, corpus: str) -> None:
        """What follows comes from the source `corpus`, in shards of its own."""
        self._corpus = corpus

    def write(self, split: str, doc: str, text: str) -> None:
        """Adds `text` to the document `doc` of `split`; parts of a document come in a row."""
        counts = self._counts[split]
        for start in range(0, len(text), PART_CHARACTERS):
            part = text[start : start + PART_CHARACTERS]
            line = b'{"doc": %b, "text": %b}\n' % (orjson.dumps(doc), orjson.dumps(part))
            self._shard(split, continues=self._last_doc[split] == doc).write(line)
            self._hashes[split].update(line)
            raw = part.encode()
            counts["characters"] += len(part)
            counts["bytes"] += len(raw)
            if self._last_doc[split] != doc:
                self._end_document(split)
                self._last_doc[split] = doc
                counts["documents"] += 1
            self._documents[split].update(raw)

    def _shard(self, split: str, *, continues: bool) -> "_OpenShard":
        """The file that the next part of `split` goes to; a new one where the last is full."""
        shards = self._shards[split]
        last = shards[-1]
        if not last.size:
            last.corpus = self._corpus
        elif last.size >= SHARD_BYTES or last.corpus != self._corpus:
            if len(shards) == 1:
                # Only now is it known that there are several.
                last.rename(self.folder / f"{split}-00000.jsonl")
            last.file.close()
            path = self.folder / f"{split}-{len(shards):05d}.jsonl"
            shards.append(_OpenShard(path, self._corpus, continues))
        return shards[-1]

    def _end_document(self, split: str) -> None:
        if self._last_doc[split] is not None:
            digest = self._documents[split].digest()
            self._digests[split].append(int.from_bytes(digest[:8], "little"))
            self._documents[split] = hashlib.sha256()

    def add_information(self, split: str, bits: float) -> None:
        """Adds -log2 P(text) of a document just written, where its distribution is known."""
        counts = self._counts[split]
        counts["information_bits"] = counts.get("information_bits", 0.0) + bits

    def finish(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Writes corpus.json with `facts` about the source, and returns it."""
        self._close()
        for split, shards in self._shards.items():
            self._end_document(split)
            if len(shards) > 1:
                self._counts[split]["shards"] = [shard.facts() for shard in shards]
        train = np.array(self._digests["train"], np.uint64)
        for split, counts in self._counts.items():
            if split != "train":
                held_out = np.array(self._digests[split], np.uint64)
                counts["documents_also_in_train"] = int(np.isin(held_out, train).sum())
            counts["sha256"] = self._hashes[split].hexdigest()
            if "information_bits" in counts:
                counts["information_bits"] = round(counts["information_bits"], 3)
        manifest = {"format": FORMAT, **facts, "splits": self._counts}
        write_json(self.folder / "corpus.json", manifest)
        return manifest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        for shards in self._shards.values():
            shards[-1].file.close()


class _OpenShard:
    """A file that is being written, and what the manifest will say of it."""

    def __init__(self, path: Path, corpus: str = "", continues: bool = False) -> None:
        self.path, self.corpus, self.continues = path, corpus, continues
        self.file = path.open("wb")
        self.size = 0
        self._hash = hashlib.sha256()

    def write(self, line: bytes) -> None:
        self.file.write(line)
        self._hash.update(line)
        self.size += len(line)

    def rename(self, path: Path) -> None:
        self.file.close()
        self.path = self.path.rename(path)

    def facts(self) -> dict[str, Any]:
        named = {"corpus": self.corpus} if self.corpus else {}
        return named | {
            "file": self.path.name,
            "sha256": self._hash.hexdigest(),
            "continues": self.continues,
        }


@dataclass(frozen=True)
class Shard:
    """A file of a split. `continues`: its first part goes on with the last document before it.

    `corpus` names its source where the split has several, and is empty otherwise.
    """

    path: Path
    sha256: str
    continues: bool = False
    corpus: str = ""


def shards_of(folder: Path, split: str) -> list[Shard]:
    """The files of `split` in their order, as corpus.json has them. Raises DataError."""
    manifest = folder / "corpus.json"
    facts = split_facts(manifest, split)
    if "shards" not in facts:
        return [Shard(folder / f"{split}.jsonl", facts["sha256"])]
    return [
        Shard(folder / one["file"], one["sha256"], one["continues"], one.get("corpus", ""))
        for one in listed_files(manifest, split, facts)
    ]


def listed_files(manifest: Path, split: str, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """What a manifest says of each shard of a split. Raises DataError where that is none."""
    listed = facts["shards"]
    if not isinstance(listed, list) or not listed:
        raise damaged(manifest, f"does not say what files {split} has")
    for number, one in enumerate(listed):
        # Names as they were given, so that none leads out of the folder.
        stem = f"{split}-{number:05d}"
        if not (
            isinstance(one, dict)
            and isinstance(one.get("sha256"), str)
            and one.get("file") in (f"{stem}.jsonl", f"{stem}.npy")
            and isinstance(one.get("continues", False), bool)
            and isinstance(one.get("corpus", ""), str)
        ):
            raise damaged(manifest, f"does not say what file {number} of {split} is")
    return listed


def read_manifest(folder: Path) -> dict[str, Any]:
    """corpus.json of a complete corpus. Raises DataError where there is none."""
    return read_json(folder / "corpus.json")


def read_parts(folder: Path, split: str) -> Iterator[tuple[str, str]]:
    """(doc, text) for each part of `split`, in order.

    Raises DataError at a line that is not what CorpusWriter writes, and at the end where the bytes
    read are not those of the manifest.
    """
    for shard in shards_of(folder, split):
        yield from read_shard(shard)


def read_shard(shard: Shard) -> Iterator[tuple[str, str]]:
    """The same for one file of a split."""
    path = shard.path
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for number, line in enumerate(_lines(file, digest), start=1):
                try:
                    part = orjson.loads(line)
                    doc, text = part["doc"], part["text"]
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
    """The lines of a file without their ends; `digest` is told all of its bytes."""
    rest = b""
    while block := file.read(BLOCK):
        # Large pieces: for short lines the calls would cost more than the hashing.
        digest.update(block)
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
    if rest:
        yield rest


def split_facts(manifest: Path, split: str) -> dict[str, Any]:
    """What a manifest says of a split, its sha256 among it. Raises DataError where it does not."""
    splits = read_json(manifest).get("splits")
    facts = splits.get(split) if isinstance(splits, dict) else None
    if not isinstance(facts, dict) or not isinstance(facts.get("sha256"), str):
        raise damaged(manifest, f"does not say what {split} holds")
    return facts


def check_sha256(path: Path, expected: str) -> None:
    """Raises DataError where the bytes of `path` are not those its manifest states."""
    try:
        actual = sha256_of(path)
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from None
    if actual != expected:
        raise damaged(path, "its sha256 is not the one in the manifest beside it")
