"""Stage `tokenize`: turn the text into token ids.  python -m stages.tokenize

Reads data/corpus and the params `tokenizer`; for `gpt2` also GPT-2's published file, which is
looked up in TIKTOKEN_CACHE_DIR and in the folder tiktoken of GPT_MIRROR before it is downloaded.
Writes data/tokens (ids, tokenizer.json, the manifest tokens.json) and metrics/tokenize.json.

    python -m stages.tokenize --shard 3 --of 32    encodes every 32nd shard ahead of the stage
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from gpt.corpus.manifest import read_chunks
from gpt.errors import GptError, ParamsError
from gpt.files import read_json, write_json
from gpt.tokenizers.base import Corpus, Tokenizer
from gpt.tokenizers.byte_level import GPT2Tokenizer
from gpt.tokenizers.encoding import (
    bytes_per_token,
    encode_ahead,
    encode_corpus,
    rare_ids_warning,
    token_metrics,
)
from gpt.tokenizers.file import KINDS
from gpt.tokenizers.gpt2_vocab import find_gpt2_vocab, gpt2_tokens, load_gpt2_vocab
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


def make_tokenizer(options: TokenizerParams) -> Tokenizer:
    """Makes the tokenizer of the corpus that `prepare` wrote."""
    corpus = Corpus(
        read=lambda split: read_chunks(CORPUS, split),
        has_bos=read_json(CORPUS / "corpus.json")["documents"] > 1,
        vocab_size=options.vocab_size,
        pattern=options.pattern,
        gpt2_tokens=download_gpt2_tokens,
    )
    return KINDS[options.kind].make(corpus)


def download_gpt2_tokens() -> list[bytes]:
    """GPT-2's tokens, from a folder that holds its vocab.bpe or from its address."""
    mirror = repository.location(MIRROR)
    return gpt2_tokens(load_gpt2_vocab(gpt2_folders(), repository.scratch(), mirror))


def gpt2_folders() -> list[Path]:
    """Folders in which tiktoken or an earlier run may have left GPT-2's vocab.bpe."""
    cache = repository.location("TIKTOKEN_CACHE_DIR")
    return [*([Path(cache)] if cache else []), repository.scratch() / "tiktoken"]


def ahead_folder() -> Path:
    """Where shards that were encoded ahead wait for the stage."""
    return repository.scratch() / "tokens"


def tokenize(params: Params, run: Run) -> None:
    kind = params.tokenizer.kind
    tokenizer = make_tokenizer(params.tokenizer)
    with tqdm(desc="tokenize", unit="tok", unit_scale=True, disable=None) as bar:
        splits, train_counts = encode_corpus(CORPUS, TOKENS, tokenizer, ahead_folder(), bar.update)
    metrics = token_metrics(splits, train_counts)
    write_json(TOKENIZE_METRICS, metrics)
    print(
        f"{kind}: vocabulary of {tokenizer.vocab_size:,}, {splits['train']['tokens']:,} tokens "
        f"to train on, {splits['val']['tokens']:,} to validate"
    )
    if kind in ("bpe", "gpt2") and (warning := rare_ids_warning(train_counts)):
        print(warning)
    # To MLflow and the terminal only: a result that DVC keeps must not depend on local files.
    vocab_bpe = find_gpt2_vocab(gpt2_folders(), repository.location(MIRROR))
    if kind != "gpt2" and splits["val"]["tokens"] and vocab_bpe:
        gpt2 = GPT2Tokenizer(gpt2_tokens(vocab_bpe), has_bos=False)
        theirs = bytes_per_token(gpt2, read_chunks(CORPUS, "val"))
        ours = metrics["val"]["bytes_per_token"]
        run.log_metrics({"tokenize/val/gpt2_bytes_per_token": theirs}, step=0)
        print(f"bytes per token on validation text: {ours:.3f}; gpt2 has {theirs:.3f}")


def encode_shards(
    shard: Annotated[int, typer.Option(help="Encode this shard ahead of the stage ...", min=0)],
    of: Annotated[int, typer.Option(help="... and every OF-th after it.", min=1)],
) -> None:
    """Encodes some shards of the corpus ahead of the stage, for machines that share this folder."""
    try:
        if shard >= of:
            raise ParamsError(f"--shard = {shard}: not below --of = {of}; use 0 to {of - 1}")
        tokenizer = make_tokenizer(load().tokenizer)
        with tqdm(desc="tokenize", unit="tok", unit_scale=True, disable=None) as bar:
            encode_ahead(CORPUS, tokenizer, ahead_folder(), shard, of, bar.update)
    except GptError as error:
        print(f"tokenize: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


if __name__ == "__main__":
    if any(argument.startswith(("--shard", "--of")) for argument in sys.argv):
        typer.run(encode_shards)
    else:
        run_stage.main(PROJECT, "tokenize", tokenize)
