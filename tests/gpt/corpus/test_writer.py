"""The corpus on disk: what is written is read back, and damage is refused."""

from collections.abc import Iterator
from pathlib import Path

import planted
import pytest
from small_corpus import joined, source_of, written

from gpt.corpus import sources
from gpt.corpus.manifest import SPLITS, read_chunks
from gpt.corpus.readers import Document
from gpt.corpus.sources import Source
from gpt.corpus.writer import CorpusWriter
from gpt.errors import DataError
from gpt.files import read_json


@pytest.mark.fault(17)
@pytest.mark.parametrize("character", ["x", "😀"])
def test_a_line_of_ten_megabytes_is_chunks_of_at_most_one(tmp_path: Path, character: str) -> None:
    text = character * (10 * 2**20 // len(character.encode()))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    chunks = written(tmp_path, sources.own_text(tmp_path / "a.txt"))
    assert max(len(chunk.encode()) for split in SPLITS for _, chunk in chunks[split]) <= 2**20
    assert joined(chunks["train"]) + joined(chunks["val"]) == text


def test_a_document_of_several_chunks_counts_once(tmp_path: Path) -> None:
    with CorpusWriter(tmp_path) as writer:
        writer.write("train", "long", "x" * 2**19)
        writer.write("train", "long", "y")
        writer.write("train", "short", "é")
        entry = writer.finish({})["splits"]["train"]
    counted = {key: entry[key] for key in ("documents", "characters", "bytes")}
    assert counted == {"documents": 2, "characters": 2**19 + 2, "bytes": 2**19 + 3}


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    for run in ("one", "two"):
        written(tmp_path / run, source_of(*(f"text {n}" for n in range(30))), test_fraction=0.1)
    for name in ("train.jsonl", "val.jsonl", "test.jsonl", "corpus.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.fault(14, planted=planted.CORPUS_UNCHECKED)
@pytest.mark.parametrize("at", [0, 9, -3, -1])
def test_one_flipped_bit_in_the_corpus_is_caught(tmp_path: Path, at: int) -> None:
    written(tmp_path, source_of("Once upon a time"))
    raw = bytearray((tmp_path / "train.jsonl").read_bytes())
    raw[at] ^= 1
    (tmp_path / "train.jsonl").write_bytes(raw)
    with pytest.raises(DataError, match=r"train\.jsonl: .*; delete \.dvc/cache/files"):
        list(read_chunks(tmp_path, "train"))


def test_a_corpus_that_lost_its_last_line_is_caught(tmp_path: Path) -> None:
    written(tmp_path, source_of(*["text"] * 20))
    lines = (tmp_path / "train.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "train.jsonl").write_bytes(b"".join(lines[:-1]))
    with pytest.raises(DataError, match="its sha256 is not"):
        list(read_chunks(tmp_path, "train"))


def test_a_corpus_without_its_manifest_is_not_read(tmp_path: Path) -> None:
    written(tmp_path, source_of("Once upon a time"))
    (tmp_path / "corpus.json").unlink()
    with pytest.raises(DataError, match=r"corpus\.json: not found"):
        list(read_chunks(tmp_path, "train"))


@pytest.mark.parametrize(
    "manifest", ["", "{", "[]", "{}", '{"splits": {}}', '{"splits": {"train": 1}}']
)
def test_a_damaged_manifest_is_refused_in_one_line(tmp_path: Path, manifest: str) -> None:
    written(tmp_path, source_of("Once upon a time"))
    (tmp_path / "corpus.json").write_text(manifest, encoding="utf-8")
    with pytest.raises(DataError, match=r"corpus\.json"):
        list(read_chunks(tmp_path, "train"))


def test_information_adds_up_over_the_documents_of_a_split(tmp_path: Path) -> None:
    def documents() -> Iterator[Document]:
        for n in range(20):
            yield Document(str(n), lambda: iter(["text"]), information_bits=float(2**n))

    chunks = written(tmp_path, Source(20, documents))
    for split, entry in read_json(tmp_path / "corpus.json")["splits"].items():
        assert entry.get("information_bits", 0) == sum(2 ** int(doc) for doc, _ in chunks[split])
