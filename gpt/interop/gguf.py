"""A GPT-2 as one GGUF file, which llama.cpp runs, tokenizer included."""

import importlib
from pathlib import Path

from torch import Tensor

from gpt.checkpoint import TrainedModel
from gpt.errors import CheckpointError
from gpt.interop.gpt2_weights import LAYER_NORM_EPSILON, has_only, rename
from gpt.interop.hf_tokenizer import END_OF_TEXT, byte_pairs, printable
from gpt.model import GPT2Block
from gpt.tokenizers.base import Tokenizer
from gpt.tokenizers.char import CharTokenizer

NAMES = {
    "token_embedding": "token_embd",
    "position_embedding": "position_embd",
    "norm": "output_norm",
    "blocks.{}.norm_1": "blk.{}.attn_norm",
    "blocks.{}.attention.qkv": "blk.{}.attn_qkv",
    "blocks.{}.attention.proj": "blk.{}.attn_output",
    "blocks.{}.norm_2": "blk.{}.ffn_norm",
    "blocks.{}.mlp.up": "blk.{}.ffn_up",
    "blocks.{}.mlp.down": "blk.{}.ffn_down",
}


def write_gguf(trained: TrainedModel, out: Path) -> list[Path]:
    """Writes `out`/model.gguf; returns the file.

    Raises CheckpointError for a model that is no GPT-2, for a tokenizer that is not made of bytes
    and merges, and where the package gguf is missing.
    """
    model, config = trained.model, trained.model.config
    if not has_only(model, GPT2Block):
        raise CheckpointError(
            "this model has no counterpart in gguf, which holds GPT-2's layout alone; use --to hf, "
            "or train with -S model.architecture=gpt2 -S model.ngram_rows=0 -S model.line_sums=0"
        )
    try:
        gguf = importlib.import_module("gguf")
    except ModuleNotFoundError:
        raise CheckpointError(
            "gguf is not installed; pip install -c constraints.txt -e '.[export]'"
        ) from None
    tokens, merges = _tokens_and_merges(trained.tokenizer)
    out.mkdir(parents=True, exist_ok=True)
    file = out / "model.gguf"
    writer = gguf.GGUFWriter(file, "gpt2")
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(LAYER_NORM_EPSILON)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    kinds = [gguf.TokenType.NORMAL] * len(tokens)
    if trained.tokenizer.bos is not None:
        tokens.append(END_OF_TEXT)
        kinds.append(gguf.TokenType.CONTROL)
        writer.add_bos_token_id(trained.tokenizer.bos)
        writer.add_eos_token_id(trained.tokenizer.bos)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    for name, tensor in gguf_tensors(model.state_dict(), config.n_layer).items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return [file]


def gguf_tensors(weights: dict[str, Tensor], n_layer: int) -> dict[str, Tensor]:
    """Our weights under llama.cpp's names; matrices (out, in), as ours are."""
    tensors = rename(weights, NAMES, n_layer)
    tensors["output.weight"] = tensors["token_embd.weight"]  # the head is the token embedding
    return tensors


def _tokens_and_merges(tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    """As llama.cpp's GPT-2 has them: byte pairs, whatever the tokenizer."""
    if isinstance(tokenizer, CharTokenizer):
        if not tokenizer.characters.isascii():
            raise CheckpointError(
                "tokenizer.kind = char: GGUF knows bytes and pairs of them, and this alphabet has "
                "characters of several bytes; train with tokenizer.kind=byte or bpe"
            )
        return [printable(character.encode()) for character in tokenizer.characters], []
    tokens, merges = byte_pairs(tokenizer)
    merged = [f"{printable(left)} {printable(right)}" for left, right in merges]
    return list(map(printable, tokens)), merged
