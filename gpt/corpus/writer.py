"""Writing a corpus to disk, in the format that manifest.py reads."""

import hashlib
from array import array
from pathlib import Path
from typing import Any, Self

import numpy as np
import orjson

from gpt.corpus.manifest import FORMAT, SPLITS
from gpt.files import write_json

SHARD_BYTES = 2**30  # a file of a split that has reached this size is followed by another
CHUNK_CHARACTERS = 2**18  # of at most four bytes each in UTF-8, so a chunk is at most 1 MiB


class CorpusWriter:
    """Writes a corpus chunk by chunk; memory does not grow with it.

    The manifest comes last, so that a folder with corpus.json is a complete corpus. What follows a
    change of `corpus`, the name of a source, goes into shards of its own.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.jsonl"):
            old.unlink()
        self.folder = folder
        self.corpus = ""
        self._splits = {split: _SplitWriter(folder, split) for split in SPLITS}

    def write(self, split: str, doc: str, text: str) -> None:
        """Appends `text` to the document `doc` of `split`; a document's chunks are consecutive."""
        for start in range(0, len(text), CHUNK_CHARACTERS):
            self._splits[split].write(doc, text[start : start + CHUNK_CHARACTERS], self.corpus)

    def add_information(self, split: str, bits: float) -> None:
        """Adds -log2 P(text) of a document of `split` whose distribution is known."""
        counts = self._splits[split].counts
        counts["information_bits"] = counts.get("information_bits", 0.0) + bits

    def finish(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """Writes corpus.json with `metadata` about the source, and returns it."""
        splits = {split: writer.finish() for split, writer in self._splits.items()}
        train = np.array(self._splits["train"].digests, np.uint64)
        for split in ("val", "test"):
            duplicates = np.isin(np.array(self._splits[split].digests, np.uint64), train)
            splits[split]["documents_also_in_train"] = int(duplicates.sum())
        manifest = {"format": FORMAT, **metadata, "splits": splits}
        write_json(self.folder / "corpus.json", manifest)
        return manifest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._splits.values():
            writer.close()


class _SplitWriter:
    """The files of one split, and what the manifest will state of them."""

    def __init__(self, folder: Path, split: str) -> None:
        self._folder, self._split = folder, split
        self._shards = [_OpenShard(folder / f"{split}.jsonl")]
        self._hash = hashlib.sha256()
        self.counts: dict[str, Any] = {"documents": 0, "characters": 0, "bytes": 0}
        self._last_doc: str | None = None
        # Of each document the first 64 bits of its sha256, so 8 bytes in memory. Two different
        # documents among ten million are taken for one with a probability below one in 100,000.
        self._document_hash = hashlib.sha256()
        self.digests = array("Q")

    def write(self, doc: str, chunk: str, corpus: str) -> None:
        line = b'{"doc": %b, "text": %b}\n' % (orjson.dumps(doc), orjson.dumps(chunk))
        self._shard(corpus, continues=self._last_doc == doc).write(line)
        self._hash.update(line)
        raw = chunk.encode()
        self.counts["characters"] += len(chunk)
        self.counts["bytes"] += len(raw)
        if self._last_doc != doc:
            self._end_document()
            self._last_doc = doc
            self.counts["documents"] += 1
        self._document_hash.update(raw)

    def _shard(self, corpus: str, *, continues: bool) -> "_OpenShard":
        """Returns the file that the next chunk goes to; a new one if the last is full."""
        last = self._shards[-1]
        if not last.size:
            last.corpus = corpus
        elif last.size >= SHARD_BYTES or last.corpus != corpus:
            last.file.close()
            if len(self._shards) == 1:
                # Only now is it known that there are several.
                last.path = last.path.rename(self._folder / f"{self._split}-00000.jsonl")
            path = self._folder / f"{self._split}-{len(self._shards):05d}.jsonl"
            self._shards.append(_OpenShard(path, corpus, continues))
        return self._shards[-1]

    def _end_document(self) -> None:
        if self._last_doc is not None:
            digest = self._document_hash.digest()
            self.digests.append(int.from_bytes(digest[:8], "little"))
            self._document_hash = hashlib.sha256()

    def finish(self) -> dict[str, Any]:
        """Ends the last document; returns the manifest's entry of the split."""
        self.close()
        self._end_document()
        counts = {**self.counts, "sha256": self._hash.hexdigest()}
        if len(self._shards) > 1:
            counts["shards"] = [shard.entry() for shard in self._shards]
        if "information_bits" in counts:
            counts["information_bits"] = round(counts["information_bits"], 3)
        return counts

    def close(self) -> None:
        self._shards[-1].file.close()


class _OpenShard:
    """A file that is being written, and its entry in the manifest."""

    def __init__(self, path: Path, corpus: str = "", continues: bool = False) -> None:
        self.path, self.corpus, self.continues = path, corpus, continues
        self.file = path.open("wb")
        self.size = 0
        self._hash = hashlib.sha256()

    def write(self, line: bytes) -> None:
        self.file.write(line)
        self._hash.update(line)
        self.size += len(line)

    def entry(self) -> dict[str, Any]:
        source = {"corpus": self.corpus} if self.corpus else {}
        return source | {
            "file": self.path.name,
            "sha256": self._hash.hexdigest(),
            "continues": self.continues,
        }
