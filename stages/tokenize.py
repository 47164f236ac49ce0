"""Stage `tokenize`: turn the text into token ids.  python -m stages.tokenize

Reads data/corpus and the params `tokenizer`. Writes data/tokens (one .npy of ids a split,
tokenizer.json, and the manifest tokens.json) and metrics/tokenize.json. Streams: memory does not
grow with the corpus.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from gpt.corpus import SPLITS, read_manifest, read_parts, write_json
from gpt.tokenizer import ByteTokenizer, CharTokenizer, Ids, Tokenizer
from stages import stage
from stages.params import Params
from stages.tracking import Row

CORPUS = Path("data/corpus")
TOKENS = Path("data/tokens")
FORMAT = 1


def make_tokenizer(kind: str, *, has_bos: bool) -> Tokenizer:
    """The tokenizer of the corpus. `char` takes the characters of the whole corpus, as peers do."""
    if kind == "byte":
        return ByteTokenizer(has_bos=has_bos)
    seen: set[str] = set()
    for split in SPLITS:
        for _, text in read_parts(CORPUS, split):
            seen.update(text)
    return CharTokenizer("".join(sorted(seen)), has_bos=has_bos)


def ids_of(split: str, tokenizer: Tokenizer) -> Iterator[Ids]:
    """The ids of a split: bos before each document and after the last, where there is a bos."""
    bos = [] if tokenizer.bos is None else [np.array([tokenizer.bos], tokenizer.dtype)]
    last_doc = None
    for doc, text in read_parts(CORPUS, split):
        if doc != last_doc:
            last_doc = doc
            yield from bos
        yield tokenizer.encode(text)
    if last_doc is not None:
        yield from bos


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
            file.write(piece.astype(dtype, copy=False).tobytes())
            count += len(piece)
        file.seek(0)
        header(file, count)
    with path.open("rb") as written:
        return count, hashlib.file_digest(written, "sha256").hexdigest()


def tokenize(params: Params, row: Row) -> None:
    corpus = read_manifest(CORPUS)
    tokenizer = make_tokenizer(params.tokenizer.kind, has_bos=corpus["documents"] > 1)
    TOKENS.mkdir(parents=True, exist_ok=True)
    write_json(TOKENS / "tokenizer.json", tokenizer.spec())
    splits: dict[str, dict[str, Any]] = {}
    with tqdm(desc="tokenize", unit="tok", unit_scale=True, disable=None) as bar:

        def shown(pieces: Iterator[Ids]) -> Iterator[Ids]:
            for piece in pieces:
                bar.update(len(piece))
                yield piece

        for split in SPLITS:
            count, sha256 = write_ids(
                TOKENS / f"{split}.npy", shown(ids_of(split, tokenizer)), tokenizer.dtype
            )
            splits[split] = {"tokens": count, "sha256": sha256}
            for fact in ("bytes", "characters", "documents", "information_bits"):
                if fact in corpus["splits"][split]:
                    splits[split][fact] = corpus["splits"][split][fact]
    write_json(
        TOKENS / "tokens.json",
        {"format": FORMAT, "corpus": corpus["corpus"], "splits": splits},
    )
    metrics: dict[str, Any] = {"vocab_size": tokenizer.vocab_size}
    for split, facts in splits.items():
        metrics[split] = {"tokens": facts["tokens"]}
        if facts["tokens"]:
            metrics[split]["bytes_per_token"] = round(facts["bytes"] / facts["tokens"], 6)
    write_json(Path("metrics/tokenize.json"), metrics)
    print(
        f"{params.tokenizer.kind}: vocabulary of {tokenizer.vocab_size}, "
        f"{splits['train']['tokens']:,} tokens to train on, {splits['val']['tokens']:,} to validate"
    )


if __name__ == "__main__":
    stage.main("tokenize", tokenize)
