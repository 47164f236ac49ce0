"""Stage `tokenize`: turn the text into token ids.  python -m stages.tokenize

Reads data/corpus and the params `tokenizer`; for `gpt2` also GPT-2's published file, which is
looked up in TIKTOKEN_CACHE_DIR and in the folder tiktoken of GPT_MIRROR before it is downloaded.
Writes data/tokens (ids, tokenizer.json, the manifest tokens.json) and metrics/tokenize.json.

    python -m stages.tokenize --shard 3 --of 32    encodes every 32nd shard ahead of the stage
"""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

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
from repro.errors import UserError
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


class _Options(argparse.ArgumentParser):
    """Options whose faults are one line, as those of params.yaml are."""

    def error(self, message: str) -> NoReturn:
        raise ParamsError(f"{message}; use --shard N --of M, where N is 0 to M - 1")


def encode_shards(arguments: list[str]) -> None:
    """Encodes some shards of the corpus ahead of the stage, for machines that share this folder."""
    options = _Options("python -m stages.tokenize", description=encode_shards.__doc__)
    options.add_argument("--shard", type=int, required=True, help="encode this shard ...")
    options.add_argument("--of", type=int, required=True, help="... and every OF-th after it")
    try:
        chosen = options.parse_args(arguments)
        if not 0 <= chosen.shard < chosen.of:
            options.error(f"--shard {chosen.shard} --of {chosen.of}: no shard has that number")
        tokenizer = make_tokenizer(load().tokenizer)
        with tqdm(desc="tokenize", unit="tok", unit_scale=True, disable=None) as bar:
            folder = ahead_folder()
            encode_ahead(CORPUS, tokenizer, folder, chosen.shard, chosen.of, bar.update)
    except (GptError, UserError, OSError) as error:
        fault = run_stage.disk_fault(error) if isinstance(error, OSError) else str(error)
        print(f"tokenize: {fault}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    if any(argument.startswith(("--shard", "--of")) for argument in sys.argv):
        encode_shards(sys.argv[1:])
    else:
        run_stage.main(PROJECT, "tokenize", tokenize)
