"""A model of ours in the layouts of others: Hugging Face's transformers, GGUF (llama.cpp), ONNX.

Only what has a counterpart there is written: architecture `gpt2`, with its tokenizer where theirs
gives the same ids. A test loads each file with the other side and compares.
"""

import json
import logging
import math
import re
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from gpt.checkpoint import TrainedModel
from gpt.corpus import write_json
from gpt.errors import CheckpointError
from gpt.exchange import to_gpt2
from gpt.tokenizer import PATTERNS, CharTokenizer, Tokenizer

# GPT-2's own vocabulary of bytes: those that can be printed are themselves, others are moved up, so
# that a token can stand in a JSON file (Radford et al. 2019, encoder.py of the release).
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
LETTERS = {byte: chr(byte) for byte in _PRINTABLE} | {
    byte: chr(256 + number) for number, byte in enumerate(_OTHERS)
}
END_OF_TEXT = "<|endoftext|>"
LAYER_NORM_EPSILON = 1e-5  # PyTorch's default, which ours have


def export(trained: TrainedModel, to: str, out: Path) -> list[Path]:
    """Writes the model into the folder `out`, in the layout `to`: hf, gguf or onnx.

    Returns the files. Raises CheckpointError for a model that has no counterpart there.
    """
    shape = trained.model.config
    if shape.architecture != "gpt2" or shape.ngram_rows:
        raise CheckpointError(
            f"model.architecture {shape.architecture}{' with n-grams' * bool(shape.ngram_rows)} "
            f"has no counterpart in {to}; train one that has: -S preset=nanogpt-cpu"
        )
    out.mkdir(parents=True, exist_ok=True)
    return {"hf": _to_hugging_face, "gguf": _to_gguf, "onnx": _to_onnx}[to](trained, out)


# --- Hugging Face ---------------------------------------------------------------------------------


def _to_hugging_face(trained: TrainedModel, out: Path) -> list[Path]:
    shape, bos = trained.model.config, trained.tokenizer.bos
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": trained.model.vocab_size,
        "n_positions": shape.block_size,
        "n_embd": shape.n_embd,
        "n_layer": shape.n_layer,
        "n_head": shape.n_head,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": LAYER_NORM_EPSILON,
        "tie_word_embeddings": True,
        "bos_token_id": bos,
        "eos_token_id": bos,
        **{f"{place}_pdrop": shape.dropout for place in ("resid", "embd", "attn")},
    }
    write_json(out / "config.json", config)
    weights = to_gpt2(trained.model.state_dict(), shape.n_layer)
    # transformers asks for the format.
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    tokenizer = hugging_face_tokenizer(trained.tokenizer)
    text = json.dumps(tokenizer, ensure_ascii=False, indent=1)
    (out / "tokenizer.json").write_text(text, encoding="utf-8")
    special = {} if bos is None else {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": shape.block_size,
            **special,
        },
    )
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    return [out / name for name in names]


def hugging_face_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """The tokenizer in the format of Hugging Face's `tokenizers`, giving the same ids.

    Raises CheckpointError for the kind `word`, whose fall-back to bytes has no counterpart there.
    """
    facts: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
    }
    if tokenizer.bos is not None:
        facts["added_tokens"] = [
            {
                "id": tokenizer.bos,
                "content": END_OF_TEXT,
                "special": True,
                **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
            }
        ]
    if isinstance(tokenizer, CharTokenizer):
        vocab = {character: number for number, character in enumerate(tokenizer.characters)}
        facts["pre_tokenizer"] = {
            "type": "Split",
            "pattern": {"Regex": r"[\s\S]"},
            "behavior": "Isolated",
            "invert": False,
        }
        # A character that the text did not have has no id here either.
        facts["model"] = {"type": "WordLevel", "vocab": vocab, "unk_token": tokenizer.characters[0]}
        facts["decoder"] = {"type": "Fuse"}
        return facts
    tokens, merges = byte_pairs(tokenizer)
    steps: list[dict[str, Any]] = []
    if pattern := getattr(tokenizer, "pattern", None):
        steps.append(
            {
                "type": "Split",
                "pattern": {"Regex": _for_oniguruma(PATTERNS[pattern])},
                "behavior": "Isolated",
                "invert": False,
            }
        )
    letters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    letters["use_regex"] = False
    facts["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*steps, letters]}
    facts["decoder"] = letters
    facts["model"] = {
        "type": "BPE",
        "vocab": {_lettered(token): number for number, token in enumerate(tokens)},
        "merges": [[_lettered(left), _lettered(right)] for left, right in merges],
        **dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix"), None),
        **dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False),
    }
    return facts


def byte_pairs(tokenizer: Tokenizer) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
    """All tokens in the order of their ids, and which two each longer one is merged from.

    tiktoken keeps the merges as the ranks of the tokens alone: the two parts of a token are what
    the merges before its own leave of it. Raises CheckpointError where tokens are not made so.
    """
    kind = tokenizer.spec()["kind"]
    if kind == "byte":
        return [bytes([byte]) for byte in range(256)], []
    if kind not in ("bpe", "gpt2"):
        raise CheckpointError(
            f"tokenizer.kind {kind} has no counterpart there; train with char, byte, bpe or gpt2"
        )
    tokens = [token.encode("latin-1") for token in tokenizer.spec()["tokens"]]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    merges = [_parts(token, ranks) for token in tokens if len(token) > 1]
    return tokens, merges


def _parts(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [ranks.get(a + b, math.inf) for a, b in pairwise(parts)]
        first = min(pairs)
        assert first < ranks[token], token
        place = pairs.index(first)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts[0], parts[1]


def _lettered(token: bytes) -> str:
    return "".join(LETTERS[byte] for byte in token)


def _for_oniguruma(pattern: str) -> str:
    """The pattern for the engine of `tokenizers`, whose `$` is the end of any line.

    It reads `{1,3}+` otherwise too. `++` and `?+` give nothing back; these patterns cut the same
    way without, only slower.
    """
    return re.sub(r"([+*?}])\+", r"\1", pattern).replace("$", r"\z")


# --- GGUF -----------------------------------------------------------------------------------------


def _to_gguf(trained: TrainedModel, out: Path) -> list[Path]:
    # Imported here: it is an extra, `pip install 'repro-gpt[export]'`.
    gguf = _extra("gguf")
    shape, model = trained.model.config, trained.model
    file = out / "model.gguf"
    tokens, merges = _gguf_tokens(trained.tokenizer)
    writer = gguf.GGUFWriter(file, "gpt2")
    writer.add_context_length(shape.block_size)
    writer.add_embedding_length(shape.n_embd)
    writer.add_feed_forward_length(4 * shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_head_count(shape.n_head)
    writer.add_layer_norm_eps(LAYER_NORM_EPSILON)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    kinds = [normal] * len(tokens)
    if trained.tokenizer.bos is not None:
        tokens.append(END_OF_TEXT)
        kinds.append(control)
        writer.add_bos_token_id(trained.tokenizer.bos)
        writer.add_eos_token_id(trained.tokenizer.bos)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    for name, tensor in gguf_tensors(model.state_dict(), shape.n_layer).items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return [file]


def gguf_tensors(weights: dict[str, Tensor], n_layer: int) -> dict[str, Tensor]:
    """Our weights under llama.cpp's names; matrices (out, in), as ours are."""
    names = {
        "token_embedding": "token_embd",
        "position_embedding": "position_embd",
        "norm": "output_norm",
    }
    for layer in range(n_layer):
        for ours, theirs in (
            ("norm_1", "attn_norm"),
            ("attention.qkv", "attn_qkv"),
            ("attention.proj", "attn_output"),
            ("norm_2", "ffn_norm"),
            ("mlp.up", "ffn_up"),
            ("mlp.down", "ffn_down"),
        ):
            names[f"blocks.{layer}.{ours}"] = f"blk.{layer}.{theirs}"
    tensors: dict[str, Tensor] = {}
    for ours, theirs in names.items():
        weight = weights[f"{ours}.weight"].cpu()
        tensors[f"{theirs}.weight"] = weight.contiguous()
        if "embedding" not in ours:
            bias = weights.get(f"{ours}.bias")
            zeros = torch.zeros(len(weight))
            tensors[f"{theirs}.bias"] = zeros if bias is None else bias.cpu()
    # The head is the token embedding again.
    tensors["output.weight"] = tensors["token_embd.weight"]
    return tensors


def _gguf_tokens(tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    """Tokens and merges as llama.cpp's GPT-2 has them: byte pairs, whatever the tokenizer."""
    if isinstance(tokenizer, CharTokenizer):
        if not tokenizer.characters.isascii():
            raise CheckpointError(
                "GGUF knows bytes and pairs of them, and this alphabet has characters of several "
                "bytes; train with tokenizer.kind=byte or bpe"
            )
        return [_lettered(character.encode()) for character in tokenizer.characters], []
    tokens, merges = byte_pairs(tokenizer)
    return (
        [_lettered(token) for token in tokens],
        [f"{_lettered(left)} {_lettered(right)}" for left, right in merges],
    )


# --- ONNX -----------------------------------------------------------------------------------------


def _to_onnx(trained: TrainedModel, out: Path) -> list[Path]:
    _extra("onnx")
    _extra("onnxscript")
    file = out / "model.onnx"
    ids_bt = torch.zeros((2, min(4, trained.model.config.block_size)), dtype=torch.int64)
    sizes = {
        0: torch.export.Dim("sequences", min=1),
        1: torch.export.Dim("positions", min=1, max=trained.model.config.block_size),
    }
    # It tells of packages that no model of ours needs, and of what it will change in itself.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            trained.model.cpu().eval(),
            (ids_bt,),
            file,
            input_names=["ids"],
            output_names=["logits"],
            dynamic_shapes={"ids_bt": sizes},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return [file]


def _extra(package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        raise CheckpointError(
            f"{package} is not installed; pip install -c constraints.txt 'repro-gpt[export]'"
        ) from None
