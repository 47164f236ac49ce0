"""Encoding a corpus: shards of text in, .npy files of ids and their manifest tokens.json out.

Streams: memory does not grow with the corpus. Not here: which tokenizer (stages/tokenize.py).
"""

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gpt.corpus.manifest import SPLITS, Shard, read_shard, shards_of
from gpt.corpus.parallel import cores, prefetch
from gpt.files import read_json, sha256_of, write_json
from gpt.tokenizers.base import Tokenizer
from gpt.tokenizers.chunking import rechunk
from gpt.types import Ids

FORMAT = 1
BATCH_CHARACTERS = 2**20  # encoded at once, for each thread
COUNT_IDS = 2**16  # counted at once: NumPy casts them to eight bytes each, which should stay cached

MEASURED_BYTES = 2**23  # enough to compare two tokenizers
# In training, below which the embedding of an id stays little more than noise.
MIN_OCCURRENCES = 10

Progress = Callable[[int], object]  # called with the number of ids written


@dataclass(frozen=True)
class ShardJob:
    """A shard to encode. `is_last`: of its split, so that `bos` ends it."""

    split: str
    shard: Shard
    is_last: bool

    @property
    def file(self) -> str:
        """The name of the token file."""
        return self.shard.path.with_suffix(".npy").name

    def encoded_ahead(self, folder: Path, tokenizer: Tokenizer) -> Path:
        """The file in `folder` where the ids wait for the stage, named by all they depend on."""
        spec = json.dumps(tokenizer.spec(), sort_keys=True)
        inputs = f"{self.shard.sha256} {self.shard.continues} {self.is_last} {spec}"
        return folder / f"{hashlib.sha256(inputs.encode()).hexdigest()[:32]}.npy"


def shard_jobs(corpus: Path) -> list[ShardJob]:
    """Lists the shards of a corpus, in order."""
    jobs = []
    for split in SPLITS:
        shards = shards_of(corpus, split)
        jobs += [ShardJob(split, shard, shard is shards[-1]) for shard in shards]
    return jobs


def encode_corpus(
    corpus: Path, tokens: Path, tokenizer: Tokenizer, ahead_folder: Path, progress: Progress
) -> tuple[dict[str, dict[str, Any]], NDArray[np.int64]]:
    """Encodes a corpus into the folder `tokens`, or takes shards that `encode_ahead` encoded.

    Returns what tokens.json says of each split, and how often each id occurs in the training split,
    (vocab_size,).
    """
    manifest = read_json(corpus / "corpus.json")
    tokens.mkdir(parents=True, exist_ok=True)
    for old in tokens.glob("*.npy"):
        old.unlink()
    write_json(tokens / "tokenizer.json", tokenizer.spec())
    counts = {split: np.zeros(tokenizer.vocab_size, dtype=np.int64) for split in SPLITS}
    files: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for job in shard_jobs(corpus):
        path = tokens / job.file
        encoded = job.encoded_ahead(ahead_folder, tokenizer)
        if encoded.exists():
            shutil.move(encoded, path)
            ids = np.load(path, mmap_mode="r", allow_pickle=False)
            num_ids = sum(map(len, _counted([ids], counts[job.split])))
            progress(num_ids)
        else:
            arrays = _counted(prefetch(encode_shard(job, tokenizer)), counts[job.split])
            num_ids = write_ids(path, arrays, tokenizer.dtype, progress)
        source = {"corpus": job.shard.corpus} if job.shard.corpus else {}
        entry = {"file": job.file, "tokens": num_ids, "sha256": sha256_of(path)}
        files[job.split].append(source | entry)
    splits = {split: _split_manifest(files[split], manifest["splits"][split]) for split in SPLITS}
    description = {key: manifest[key] for key in ("corpus", "weights") if key in manifest}
    write_json(tokens / "tokens.json", {"format": FORMAT, **description, "splits": splits})
    return splits, counts["train"]


def encode_ahead(
    corpus: Path, tokenizer: Tokenizer, ahead_folder: Path, index: int, of: int, progress: Progress
) -> None:
    """Encodes shards index, index + of, ... into `ahead_folder`, where `encode_corpus` finds them.

    Machines that share the folder may each take one `index` below `of`.
    """
    ahead_folder.mkdir(parents=True, exist_ok=True)
    for job in shard_jobs(corpus)[index::of]:
        path = job.encoded_ahead(ahead_folder, tokenizer)
        if not path.exists():
            unfinished = path.with_suffix(f".{platform.node()}-{os.getpid()}")
            arrays = prefetch(encode_shard(job, tokenizer))
            write_ids(unfinished, arrays, tokenizer.dtype, progress)
            unfinished.replace(path)


def encode_shard(job: ShardJob, tokenizer: Tokenizer) -> Iterator[Ids]:
    """Encodes a shard: `bos` before each document that starts in it, and at the end of the split.

    Yields arrays of many documents, since there may be millions of short ones. A document that
    continues in the next shard is cut where they meet.
    """
    bos = np.array([] if tokenizer.bos is None else [tokenizer.bos], tokenizer.dtype)
    last_doc: str | None = None
    continues = job.shard.continues
    threads = cores()
    # Reading overlaps with encoding; both overlap with writing through the caller's `prefetch`.
    for batch in prefetch(_batches(rechunk(read_shard(job.shard)), BATCH_CHARACTERS * threads)):
        arrays: list[Ids] = []
        encoded = tokenizer.encode_batch([text for _, text in batch], threads)
        for (doc, _), ids in zip(batch, encoded, strict=True):
            if doc != last_doc and not continues:
                arrays.append(bos)
            continues, last_doc = False, doc
            arrays.append(ids)
        yield np.concatenate(arrays)
    if job.is_last and last_doc is not None:
        yield bos


def write_ids(
    path: Path, arrays: Iterable[Ids], dtype: np.dtype[Any], progress: Progress = lambda count: None
) -> int:
    """Streams arrays of ids into one .npy file; returns the number of ids."""

    def write_header(file: IO[bytes], num_ids: int) -> None:
        # NumPy pads the header so that the length may grow: it keeps its size.
        description = {"descr": dtype.str, "fortran_order": False, "shape": (num_ids,)}
        np.lib.format.write_array_header_1_0(file, description)

    num_ids = 0
    with path.open("wb") as file:
        write_header(file, 0)
        for ids in arrays:
            file.write(ids.astype(dtype, copy=False).data)
            num_ids += len(ids)
            progress(len(ids))
        file.seek(0)
        write_header(file, num_ids)
    return num_ids


def token_metrics(
    splits: dict[str, dict[str, Any]], train_counts: NDArray[np.int64]
) -> dict[str, Any]:
    """The content of metrics/tokenize.json, from what `encode_corpus` returns."""
    metrics: dict[str, Any] = {
        "vocab_size": len(train_counts),
        "vocab_used": round(float((train_counts > 0).mean()), 6),
    }
    for name, split in splits.items():
        metrics[name] = {"tokens": split["tokens"]}
        if split["tokens"]:
            metrics[name]["bytes_per_token"] = round(split["bytes"] / split["tokens"], 6)
    return metrics


def bytes_per_token(tokenizer: Tokenizer, chunks: Iterable[tuple[str, str]]) -> float:
    """Measures UTF-8 bytes per token on the first MEASURED_BYTES of (doc, text) chunks."""
    num_bytes = num_tokens = 0
    for _, text in rechunk(chunks):
        num_bytes += len(text.encode())
        num_tokens += len(tokenizer.encode(text))
        if num_bytes >= MEASURED_BYTES:
            break
    return num_bytes / num_tokens


def rare_ids_warning(train_counts: NDArray[np.int64]) -> str:
    """Says what to do if most ids are too rare in the training split to be learned, else ""."""
    frequent = int((train_counts >= MIN_OCCURRENCES).sum())
    if 2 * frequent >= len(train_counts):
        return ""
    return (
        f"warning: the vocabulary is too large for this text: {len(train_counts) - frequent:,} of "
        f"{len(train_counts):,} ids occur fewer than {MIN_OCCURRENCES} times in the training "
        "split, too rarely to be learned; use more text, or tokenizer.kind=bpe and "
        f"tokenizer.vocab_size={max(512, 2 ** frequent.bit_length() // 2)}"
    )


def _counted(arrays: Iterable[Ids], counts: NDArray[np.int64]) -> Iterator[Ids]:
    """Passes `arrays` on; adds the occurrences of each id to `counts`."""
    for ids in arrays:
        for start in range(0, len(ids), COUNT_IDS):
            counts += np.bincount(ids[start : start + COUNT_IDS], minlength=len(counts))
        yield ids


def _batches(chunks: Iterator[tuple[str, str]], size: int) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    characters = 0
    for chunk in chunks:
        batch.append(chunk)
        characters += len(chunk[1])
        if characters >= size:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _split_manifest(files: list[dict[str, Any]], corpus_split: dict[str, Any]) -> dict[str, Any]:
    """What tokens.json says of a split; a split in shards lists them."""
    keys = ("bytes", "characters", "documents", "information_bits")
    split = {key: corpus_split[key] for key in keys if key in corpus_split}
    split["tokens"] = sum(file["tokens"] for file in files)
    if "shards" in corpus_split:
        hashes = " ".join(file["sha256"] for file in files)
        return split | {"sha256": hashlib.sha256(hashes.encode()).hexdigest(), "shards": files}
    return split | {"sha256": files[0]["sha256"]}
