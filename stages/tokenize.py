"""Stage `tokenize`: turn the text into token ids.  python -m stages.tokenize

Reads data/corpus and the params `tokenizer`; for `gpt2` also GPT-2's published file, which is
looked for in TIKTOKEN_CACHE_DIR and in the folder tiktoken of GPT_MIRROR before it is downloaded.
Writes data/tokens (one .npy of ids a split, tokenizer.json, and the manifest tokens.json) and
metrics/tokenize.json. Streams: memory does not grow with the corpus.
"""

import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from tqdm import tqdm

from gpt.corpus.manifest import (
    SPLITS,
    Shard,
    read_manifest,
    read_parts,
    read_shard,
    shards_of,
)
from gpt.corpus.parallel import ahead, cores
from gpt.errors import GptError, TokenizerError
from gpt.files import write_json
from gpt.tokenizers import bpe_training as vocabulary
from gpt.tokenizers.base import (
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    GPT2Tokenizer,
    Ids,
    Tokenizer,
    WordTokenizer,
    recut,
)
from repro import repository, run_stage
from repro.tracking.run import Run
from stages.params import (
    CORPUS,
    MIRROR,
    PROJECT,
    TOKENIZE_METRICS,
    TOKENS,
    Params,
    TokenizerParams,
    load,
)

FORMAT = 1
# Characters encoded at once, for each thread.
BATCH = 2**20
# What an id must be seen in training for its vector to be more than noise, about.
SELDOM = 10
# Ids counted at once: NumPy makes numbers of eight bytes of them, which should stay in a cache.
COUNTED = 2**16
# Ids of a file that was made before, looked at at once.
READ = 2**24
# Enough of the validation text for a comparison with GPT-2's tokens, in bytes.
COMPARED = 2**23


def make_tokenizer(options: TokenizerParams, *, has_bos: bool) -> Tokenizer:
    """The tokenizer of the corpus. `char` takes the characters of the whole corpus, as peers do;
    `bpe` and `word` learn from the training split alone."""

    def train_texts() -> Iterator[str]:
        return (text for _, text in recut(read_parts(CORPUS, "train")))

    sizes: Any = {
        "vocab_size": options.vocab_size - has_bos,
        "min_frequency": options.min_frequency,
        "pattern": options.pattern,
    }
    match options.kind:
        case "byte":
            return ByteTokenizer(has_bos=has_bos)
        case "char":
            texts = (text for split in SPLITS for _, text in read_parts(CORPUS, split))
            return CharTokenizer(vocabulary.characters(texts), has_bos=has_bos)
        case "bpe":
            tokens = vocabulary.train_bpe(train_texts, **sizes)
            return BPETokenizer(tokens, options.pattern, has_bos=has_bos)
        case "word":
            words = vocabulary.frequent_words(train_texts, **sizes)
            return WordTokenizer(words, options.pattern, has_bos=has_bos)
        case "gpt2":
            return GPT2Tokenizer(vocabulary.gpt2_tokens(gpt2_file()), has_bos=has_bos)


# --- GPT-2's file ---------------------------------------------------------------------------------


def gpt2_file_at_hand() -> bytes | None:
    """GPT-2's vocab.bpe where a folder on this machine has it, under the name tiktoken gives it."""
    mirror = repository.location(MIRROR)
    folders = [_tiktoken_cache()]
    if mirror and "://" not in mirror:
        folders.append(Path(mirror) / "tiktoken")
    for folder in folders:
        try:
            content = (folder / vocabulary.GPT2_FILE).read_bytes()
        except OSError:
            continue
        if hashlib.sha256(content).hexdigest() == vocabulary.GPT2_SHA256:
            return content
    return None


def gpt2_file() -> bytes:
    """The same, from the network if need be. Raises TokenizerError where that fails too."""
    content = gpt2_file_at_hand()
    if content is not None:
        return content
    # Imported here: only a download pays for it.
    from tiktoken.load import read_file, read_file_cached

    mirror = repository.location(MIRROR)
    if mirror and "://" in mirror:
        try:
            content = read_file(f"{mirror.rstrip('/')}/tiktoken/{vocabulary.GPT2_FILE}")
            if hashlib.sha256(content).hexdigest() == vocabulary.GPT2_SHA256:
                return content
        except (OSError, ValueError, ImportError):
            pass  # then from where everybody has it
    # Where tiktoken looks for it, and keeps it.
    os.environ["TIKTOKEN_CACHE_DIR"] = str(_tiktoken_cache())
    try:
        return read_file_cached(vocabulary.GPT2_URL, vocabulary.GPT2_SHA256)
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; a hash, ValueError
        raise TokenizerError(
            f"tokenizer.kind gpt2 needs {vocabulary.GPT2_URL}, which could not be had "
            f"({type(error).__name__}); get it where there is a network, name it "
            f"{vocabulary.GPT2_FILE}, and set TIKTOKEN_CACHE_DIR to its folder; "
            "or train with tokenizer.kind=bpe"
        ) from None


def _tiktoken_cache() -> Path:
    folder = repository.location("TIKTOKEN_CACHE_DIR")
    return Path(folder) if folder else repository.scratch() / "tiktoken"


# --- ids ------------------------------------------------------------------------------------------


def ids_of(
    shard: Shard, tokenizer: Tokenizer, threads: int = 1, *, last: bool = True
) -> Iterator[Ids]:
    """The ids of a shard: bos before each document that begins in it, and after the `last` one.

    In arrays of many documents each, since there may be millions of short ones. A document that
    reaches across shards is cut where they meet.
    """
    bos = np.array([] if tokenizer.bos is None else [tokenizer.bos], tokenizer.dtype)
    last_doc: str | None = None
    begun = shard.continues
    # Reading, encoding and, by the caller, writing go on at the same time.
    for batch in ahead(_batches(recut(read_shard(shard)), BATCH * threads)):
        arrays: list[Ids] = []
        encoded = tokenizer.encode_batch([text for _, text in batch], threads)
        for (doc, _), ids in zip(batch, encoded, strict=True):
            if doc != last_doc and not begun:
                arrays.append(bos)
            begun, last_doc = False, doc
            arrays.append(ids)
        yield np.concatenate(arrays)
    if last and last_doc is not None:
        yield bos


def _batches(parts: Iterator[tuple[str, str]], size: int) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    held = 0
    for part in parts:
        batch.append(part)
        held += len(part[1])
        if held >= size:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def write_ids(path: Path, ids: Iterator[Ids], dtype: np.dtype[Any]) -> tuple[int, str]:
    """Streams ids into a .npy file; returns their number and the file's sha256."""

    def header(file: IO[bytes], count: int) -> None:
        # NumPy leaves room for the length to grow, so the header keeps its size.
        description = {"descr": dtype.str, "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_1_0(file, description)

    count = 0
    with path.open("wb") as file:
        header(file, 0)
        for piece in ids:
            file.write(piece.astype(dtype, copy=False).data)
            count += len(piece)
        file.seek(0)
        header(file, count)
    with path.open("rb") as written:
        return count, hashlib.file_digest(written, "sha256").hexdigest()


# --- shards ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """A shard to encode, and the token file that it becomes."""

    split: str
    shard: Shard
    last: bool

    @property
    def file(self) -> str:
        return self.shard.path.with_suffix(".npy").name


def all_work() -> list[Work]:
    """The shards of the corpus, in their order."""
    found = []
    for split in SPLITS:
        shards = shards_of(CORPUS, split)
        found += [Work(split, shard, shard is shards[-1]) for shard in shards]
    return found


def encode(
    work: Work, tokenizer: Tokenizer, path: Path, progress: Callable[[Ids], None]
) -> tuple[int, str]:
    """Writes the ids of a shard to `path`; returns their number and the file's sha256."""

    def shown() -> Iterator[Ids]:
        for piece in ahead(ids_of(work.shard, tokenizer, cores(), last=work.last)):
            progress(piece)
            yield piece

    return write_ids(path, shown(), tokenizer.dtype)


def made_before(work: Work, tokenizer: Tokenizer) -> Path:
    """Where a shard's ids wait for the stage, named by all that they depend on."""
    spec = json.dumps(tokenizer.spec(), sort_keys=True)
    facts = f"{work.shard.sha256} {work.shard.continues} {work.last} {spec}"
    return (
        repository.scratch() / "tokens" / f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}.npy"
    )


def encode_some(number: int, of: int) -> None:
    """Encodes each `of`-th shard, from `number` on, ahead of the stage, which then takes them.

    So that other machines that share the repository's folder may do it: a Slurm array, or what
    else runs a command many times.
    """
    params = load()
    tokenizer = make_tokenizer(params.tokenizer, has_bos=read_manifest(CORPUS)["documents"] > 1)
    for work in all_work()[number::of]:
        path = made_before(work, tokenizer)
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{platform.node()}-{os.getpid()}")
        with tqdm(desc=work.file, unit="tok", unit_scale=True, disable=None) as bar:

            def seen(piece: Ids, bar: Any = bar) -> None:
                bar.update(len(piece))

            count, _ = encode(work, tokenizer, aside, seen)
        aside.rename(path)
        print(f"{work.file}: {count:,} tokens")


# --- the stage ------------------------------------------------------------------------------------


def tokenize(params: Params, run: Run) -> None:
    corpus = read_manifest(CORPUS)
    kind = params.tokenizer.kind
    tokenizer = make_tokenizer(params.tokenizer, has_bos=corpus["documents"] > 1)
    TOKENS.mkdir(parents=True, exist_ok=True)
    for old in TOKENS.glob("*.npy"):
        old.unlink()
    write_json(TOKENS / "tokenizer.json", tokenizer.spec())
    counts = {split: np.zeros(tokenizer.vocab_size, dtype=np.int64) for split in SPLITS}
    files: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    with tqdm(desc="tokenize", unit="tok", unit_scale=True, disable=None) as bar:
        for work in all_work():

            def seen(piece: Ids, split: str = work.split) -> None:
                for start in range(0, len(piece), COUNTED):
                    some = piece[start : start + COUNTED]
                    counts[split] += np.bincount(some, minlength=tokenizer.vocab_size)
                bar.update(len(piece))

            files[work.split].append(one_file(work, tokenizer, seen))
    splits = {split: split_of(files[split], corpus["splits"][split]) for split in SPLITS}
    facts = {"weights": corpus["weights"]} if "weights" in corpus else {}
    write_json(
        TOKENS / "tokens.json",
        {"format": FORMAT, "corpus": corpus["corpus"], "splits": splits, **facts},
    )
    metrics: dict[str, Any] = {
        "vocab_size": tokenizer.vocab_size,
        "vocab_used": round(float((counts["train"] > 0).mean()), 6),
    }
    for split, facts in splits.items():
        metrics[split] = {"tokens": facts["tokens"]}
        if facts["tokens"]:
            metrics[split]["bytes_per_token"] = round(facts["bytes"] / facts["tokens"], 6)
    write_json(TOKENIZE_METRICS, metrics)
    print(
        f"{kind}: vocabulary of {tokenizer.vocab_size:,}, "
        f"{splits['train']['tokens']:,} tokens to train on, {splits['val']['tokens']:,} to validate"
    )
    if kind in ("bpe", "gpt2", "word") and (warning := too_large(counts["train"])):
        print(warning)
    if kind != "gpt2":
        compare_with_gpt2(run, metrics["val"].get("bytes_per_token"))


def one_file(work: Work, tokenizer: Tokenizer, seen: Callable[[Ids], None]) -> dict[str, Any]:
    """Makes the token file of a shard, or takes the one that was made before; what it holds."""
    path, before = TOKENS / work.file, made_before(work, tokenizer)
    if before.exists():
        shutil.move(before, path)
        ids = np.load(path, mmap_mode="r", allow_pickle=False)
        for start in range(0, len(ids), READ):
            seen(ids[start : start + READ])
        with path.open("rb") as file:
            count, sha256 = len(ids), hashlib.file_digest(file, "sha256").hexdigest()
    else:
        count, sha256 = encode(work, tokenizer, path, seen)
    named = {"corpus": work.shard.corpus} if work.shard.corpus else {}
    return named | {"file": work.file, "tokens": count, "sha256": sha256}


def split_of(files: list[dict[str, Any]], corpus: dict[str, Any]) -> dict[str, Any]:
    """What tokens.json says of a split: as of its one file, or of all and each."""
    facts: dict[str, Any] = {"tokens": sum(file["tokens"] for file in files)}
    if "shards" in corpus:
        hashes = " ".join(file["sha256"] for file in files)
        facts |= {"sha256": hashlib.sha256(hashes.encode()).hexdigest(), "shards": files}
    else:
        facts["sha256"] = files[0]["sha256"]
    for fact in ("bytes", "characters", "documents", "information_bits"):
        if fact in corpus:
            facts[fact] = corpus[fact]
    return facts


def too_large(counts: NDArray[np.int64]) -> str:
    """What to say where most of the vocabulary is seen too seldom to be learned, else nothing."""
    often = int((counts >= SELDOM).sum())
    if 2 * often >= len(counts):
        return ""
    return (
        f"warning: the vocabulary is too large for this text: {len(counts) - often:,} of "
        f"{len(counts):,} ids occur fewer than {SELDOM} times in the training split, too seldom to "
        f"be learned; take more text, or a smaller one: tokenizer.kind=bpe and "
        f"tokenizer.vocab_size={max(512, 2 ** often.bit_length() // 2)}"
    )


def compare_with_gpt2(run: Run, ours: float | None) -> None:
    """Tells what GPT-2's tokens would hold, where its file lies on this machine.

    Only to the run and the terminal: a result that DVC keeps must not depend on what lies where.
    """
    content = gpt2_file_at_hand()
    if ours is None or content is None:
        return
    gpt2 = GPT2Tokenizer(vocabulary.gpt2_tokens(content), has_bos=False)
    size = tokens = 0
    for _, text in recut(read_parts(CORPUS, "val")):
        size += len(text.encode())
        tokens += len(gpt2.encode(text))
        if size >= COMPARED:
            break
    run.log_metrics({"tokenize/val/gpt2_bytes_per_token": size / tokens}, step=0)
    print(f"bytes per token on validation text: {ours:.3f}; gpt2 has {size / tokens:.3f}")


def by_hand(
    shard: Annotated[int, typer.Option(help="Encode this shard ahead of the stage ...", min=0)],
    of: Annotated[int, typer.Option(help="... and each so many further ones.", min=1)],
) -> None:
    """Encodes some shards of the corpus ahead of the stage, for machines that share this folder."""
    try:
        encode_some(shard, of)
    except GptError as error:
        print(f"tokenize: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


if __name__ == "__main__":
    if len(sys.argv) > 1:
        typer.run(by_hand)
    else:
        run_stage.main(PROJECT, "tokenize", tokenize)
