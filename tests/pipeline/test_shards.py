"""Corpora in several files: by their size, and by their sources."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt.batches import manifest, open_tokens, weighted_sources
from gpt.corpus import writer as corpus_writer
from gpt.corpus.manifest import SPLITS, read_chunks, read_shard, shards_of
from gpt.corpus.writer import CorpusWriter
from gpt.errors import DataError, ParamsError
from gpt.tokenizers import encoding
from gpt.tokenizers.base import Tokenizer
from gpt.tokenizers.file import load_tokenizer
from gpt.types import Ids
from repro.tracking import run as tracking
from stages import params, prepare, tokenize

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "params.yaml").read_text(encoding="utf-8")
PARTS = [(f"doc-{n // 7}", f"Part {n} of a tale, été.\n" * 3) for n in range(60)]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def params_with(**changes: object) -> params.Params:
    loaded = params.parse(TEXT).model_dump()
    for key, value in changes.items():
        section, name = key.split("__")
        loaded[section][name] = value
    return params.parse(json.dumps(loaded))


def write(parts: list[tuple[str, str]] = PARTS) -> dict[str, Any]:
    with CorpusWriter(tokenize.CORPUS) as writer:
        for number, (doc, text) in enumerate(parts):
            writer.write("val" if number > 50 else "train", doc, text)
        return writer.finish({"corpus": "own", "documents": 14})


def tokens_of(**changes: object) -> dict[str, list[int]]:
    tokenize.tokenize(params_with(**changes), tracking.Run())
    size = load_tokenizer(tokenize.TOKENS / "tokenizer.json").vocab_size
    return {split: open_tokens(tokenize.TOKENS, split, size)[:].tolist() for split in SPLITS}


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_writer, "SHARD_BYTES", 1000)


# --- by size --------------------------------------------------------------------------------------


def test_a_large_split_stands_in_several_files_that_read_like_one(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    single = write()
    expected = {split: list(read_chunks(tokenize.CORPUS, split)) for split in SPLITS}
    monkeypatch.setattr(corpus_writer, "SHARD_BYTES", 1000)
    made = write()
    assert {split: list(read_chunks(tokenize.CORPUS, split)) for split in SPLITS} == expected
    assert not (tokenize.CORPUS / "train.jsonl").exists()
    names = [shard.path.name for shard in shards_of(tokenize.CORPUS, "train")]
    assert names == [f"train-{number:05d}.jsonl" for number in range(len(names))]
    assert len(names) > 3
    for split in SPLITS:
        assert {**made["splits"][split], "shards": 0} == {**single["splits"][split], "shards": 0}
    assert all(path.stat().st_size < 1400 for path in tokenize.CORPUS.glob("*.jsonl"))


@pytest.mark.parametrize("kind", ["char", "byte"])
def test_the_ids_of_several_files_are_those_of_one(
    repository: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    write()
    expected = tokens_of(tokenizer__kind=kind)
    monkeypatch.setattr(corpus_writer, "SHARD_BYTES", 1000)
    write()
    assert tokens_of(tokenizer__kind=kind) == expected
    assert weighted_sources(manifest(tokenize.TOKENS)) == []
    assert not (tokenize.TOKENS / "train.npy").exists()
    assert any(shard.continues for shard in shards_of(tokenize.CORPUS, "train"))


@pytest.mark.slow
def test_shards_encoded_by_other_processes_give_the_same_bytes_and_are_taken(
    repository: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write()
    changes = {"tokenizer__kind": "bpe", "tokenizer__vocab_size": 300}
    (repository / "params.yaml").write_text(
        json.dumps(params_with(**changes).model_dump()), encoding="utf-8"
    )
    expected = tokens_of(**changes)
    files = {path.name: path.read_bytes() for path in tokenize.TOKENS.iterdir()}
    shutil.rmtree(tokenize.TOKENS)
    command = [sys.executable, "-m", "stages.tokenize", "--of", "3", "--shard"]
    for shard in "012":
        path = {"PYTHONPATH": str(REPOSITORY), "PATH": ""}
        done = subprocess.run(
            [*command, shard], env=path, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    monkeypatch.setattr(encoding, "encode_shard", lambda *_: pytest.fail("encoded once more"))
    assert tokens_of(**changes) == expected
    assert {path.name: path.read_bytes() for path in tokenize.TOKENS.iterdir()} == files


def test_the_stage_takes_the_shards_that_were_encoded_ahead(
    repository: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write()
    expected = tokens_of()
    tokenizer = load_tokenizer(tokenize.TOKENS / "tokenizer.json")
    jobs = encoding.shard_jobs(tokenize.CORPUS)
    ahead = jobs[1].encoded_ahead(tokenize.ahead_folder(), tokenizer)
    ahead.parent.mkdir(parents=True)
    (tokenize.TOKENS / jobs[1].file).rename(ahead)
    encoded: list[str] = []
    encode_shard = encoding.encode_shard

    def noted(job: encoding.ShardJob, tokenizer: Tokenizer) -> Iterator[Ids]:
        encoded.append(job.file)
        return encode_shard(job, tokenizer)

    monkeypatch.setattr(encoding, "encode_shard", noted)
    assert tokens_of() == expected
    assert encoded == [job.file for job in jobs if job != jobs[1]]


def test_a_flipped_bit_in_a_shard_is_found_and_named(repository: Path, small_shards: None) -> None:
    write()
    expected = tokens_of()
    path = tokenize.CORPUS / "train-00002.jsonl"
    path.write_bytes(path.read_bytes().replace(b"tale", b"tame"))
    with pytest.raises(DataError, match=r"train-00002\.jsonl: its sha256"):
        list(read_chunks(tokenize.CORPUS, "train"))
    ids = tokenize.TOKENS / "train-00001.npy"
    raw = bytearray(ids.read_bytes())
    raw[-2] ^= 1
    ids.write_bytes(raw)
    with pytest.raises(DataError, match=r"train-00001\.npy: its sha256"):
        open_tokens(tokenize.TOKENS, "train", max(expected["train"]) + 1)


@pytest.mark.parametrize("name", ["../train-00000.jsonl", "/etc/passwd", "train.jsonl", 3, None])
def test_a_manifest_that_names_another_file_is_refused(
    repository: Path, small_shards: None, name: object
) -> None:
    write()
    path = tokenize.CORPUS / "corpus.json"
    manifest_dict = json.loads(path.read_bytes())
    manifest_dict["splits"]["train"]["shards"][0]["file"] = name
    path.write_text(json.dumps(manifest_dict), encoding="utf-8")
    with pytest.raises(DataError, match="does not describe file 0 of train"):
        list(read_chunks(tokenize.CORPUS, "train"))


# --- by source ------------------------------------------------------------------------------------


def mixed(repository: Path, **changes: object) -> params.Params:
    (repository / "own").mkdir(exist_ok=True)
    (repository / "own/sea.txt").write_text("The sea is wide. " * 400, encoding="utf-8")
    return params_with(
        data__corpus="own+verse", data__path="own", data__verse_bytes=200_000, **changes
    )


def test_several_sources_are_one_corpus_each_in_files_of_its_own(repository: Path) -> None:
    config = mixed(repository, data__weights=[1.0, 3.0])
    prepare.prepare(config, tracking.Run())
    manifest_dict = json.loads((tokenize.CORPUS / "corpus.json").read_bytes())
    assert manifest_dict["weights"] == {"own": 1.0, "verse": 3.0}
    assert manifest_dict["split_by"] == "contiguous and document"
    # The information of verse is not that of the mixture.
    assert "information_bits" not in manifest_dict["splits"]["val"]
    for split in ("train", "val"):
        own, verse = shards_of(tokenize.CORPUS, split)
        assert (own.corpus, verse.corpus) == ("own", "verse")
        docs = [doc for doc, _ in read_shard(own)]
        assert set(docs) == {"own/sea.txt"}
        assert all(doc.startswith("verse/play-") for doc, _ in read_shard(verse))
    tokenize.tokenize(config, tracking.Run())
    sources = weighted_sources(manifest(tokenize.TOKENS))
    assert [(source.corpus, source.weight) for source in sources] == [("own", 1.0), ("verse", 3.0)]
    vocab_size = load_tokenizer(tokenize.TOKENS / "tokenizer.json").vocab_size
    ids = open_tokens(tokenize.TOKENS, "train", vocab_size)
    assert sum(source.tokens for source in sources) == len(ids)
    bos = load_tokenizer(tokenize.TOKENS / "tokenizer.json").bos
    assert np.flatnonzero(ids[:] == bos)[:2].tolist() == [0, sources[0].tokens]


def test_sources_stand_in_the_order_of_their_files() -> None:
    files = [("verse", 5), ("own", 7), ("own", 2)]
    shards = [{"corpus": corpus, "tokens": tokens} for corpus, tokens in files]
    manifest_dict = {"weights": {"own": 1.0, "verse": 3.0}, "splits": {"train": {"shards": shards}}}
    sources = [
        (source.corpus, source.tokens, source.weight) for source in weighted_sources(manifest_dict)
    ]
    assert sources == [("verse", 5, 3.0), ("own", 9, 1.0)]


def test_without_weights_the_sources_count_by_their_sizes(repository: Path) -> None:
    config = mixed(repository)
    prepare.prepare(config, tracking.Run())
    tokenize.tokenize(config, tracking.Run())
    assert weighted_sources(manifest(tokenize.TOKENS)) == []


@pytest.mark.parametrize(
    ("corpora", "weights", "said"),
    [
        ("shakespear", [], "did you mean shakespeare"),
        ("verse+web", [], "'web' is not known"),
        ("verse+verse", [], "names one twice"),
        ("verse+names", [1.0], "one number above 0 for each of verse, names"),
        ("verse+names", [1.0, 0.0], "one number above 0"),
        ("", [], "'' is not known"),
    ],
)
def test_a_corpus_or_weight_that_cannot_be_is_refused(
    corpora: str, weights: list[float], said: str
) -> None:
    with pytest.raises(ParamsError, match=said):
        params_with(data__corpus=corpora, data__weights=weights)
