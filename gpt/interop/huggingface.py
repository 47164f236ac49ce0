"""A model of ours in the layouts of others: Hugging Face's transformers, GGUF (llama.cpp), ONNX.

    hf     architecture gpt2 as GPT2LMHeadModel, modern as NanoChatForCausalLM, with the tokenizer
    gguf   architecture gpt2, with the tokenizer
    onnx   any model of ours, n-grams and places in lines included; the tokenizer stays here

Only what has an exact counterpart there is written. A test loads each file with the other side and
compares.

Shapes: h heads, k = n_embd / h numbers a head, d = n_embd.
"""

import json
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from gpt.checkpoint import TrainedModel
from gpt.config import OUR_SOURCE, ModelConfig
from gpt.errors import CheckpointError
from gpt.files import write_json
from gpt.interop.gpt2_weights import to_gpt2
from gpt.tokenizers.base import PATTERNS, CharTokenizer, Tokenizer
from gpt.tokenizers.bpe_reference import merges_of
from gpt.tokenizers.byte_level import BYTE_TO_UNICODE

END_OF_TEXT = "<|endoftext|>"
LAYER_NORM_EPSILON = 1e-5  # PyTorch's default, which ours have
RMS_NORM_EPSILON = torch.finfo(torch.float32).eps  # likewise


def export(trained: TrainedModel, to: str, out: Path) -> list[Path]:
    """Writes the model into the folder `out`, in the layout `to`: hf, gguf or onnx.

    Returns the files. Raises CheckpointError for a model that has no counterpart there.
    """
    changes = _changes_for(trained.model.config, to)
    if changes:
        raise CheckpointError(
            f"this model has no counterpart in {to}; train one that has: -S {' -S '.join(changes)}"
        )
    out.mkdir(parents=True, exist_ok=True)
    return {"hf": _to_hugging_face, "gguf": _to_gguf, "onnx": _to_onnx}[to](trained, out)


def _changes_for(shape: ModelConfig, to: str) -> list[str]:
    """What would have to be set for the layout to have a counterpart; nothing where it has."""
    if to == "onnx":  # holds operations, not names of architectures
        return []
    fitting: dict[str, Any] = {"source": OUR_SOURCE, "ngram_rows": 0, "line_sums": 0}
    if to == "hf" and shape.architecture == "modern":
        fitting["bias"] = False
    else:
        fitting["architecture"] = "gpt2"
    return [
        f"model.{key}={str(value).lower()}"
        for key, value in fitting.items()
        if getattr(shape, key) != value
    ]


# --- Hugging Face ---------------------------------------------------------------------------------


def _to_hugging_face(trained: TrainedModel, out: Path) -> list[Path]:
    shape, bos = trained.model.config, trained.tokenizer.bos
    weights = {name: tensor.cpu() for name, tensor in trained.model.state_dict().items()}
    if shape.architecture == "modern":
        layout, weights = _nanochat(shape), nanochat_tensors(weights, shape)
    else:
        layout, weights = _gpt2(shape), to_gpt2(weights, shape.n_layer)
    ids = {"bos_token_id": bos, "eos_token_id": bos, "pad_token_id": None}
    write_json(out / "config.json", {**layout, "vocab_size": trained.model.vocab_size, **ids})
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


def _gpt2(shape: ModelConfig) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_positions": shape.block_size,
        "n_embd": shape.n_embd,
        "n_layer": shape.n_layer,
        "n_head": shape.n_head,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": LAYER_NORM_EPSILON,
        "tie_word_embeddings": True,
        **{f"{place}_pdrop": shape.dropout for place in ("resid", "embd", "attn")},
    }


def _nanochat(shape: ModelConfig) -> dict[str, Any]:
    """NanoChat too has normalised queries and keys, a squared ReLU and norms without gain. It
    rotates before it normalises, which is the same: turning keeps lengths.
    """
    return {
        "architectures": ["NanoChatForCausalLM"],
        "model_type": "nanochat",
        "max_position_embeddings": shape.block_size,
        "hidden_size": shape.n_embd,
        "intermediate_size": 4 * shape.n_embd,
        "num_hidden_layers": shape.n_layer,
        "num_attention_heads": shape.n_head,
        "hidden_act": "relu2",
        "rms_norm_eps": RMS_NORM_EPSILON,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        # Its own models bend their logits; ours do not.
        "final_logit_softcapping": None,
        "attention_bias": False,
        "attention_dropout": shape.dropout,
        "tie_word_embeddings": False,
    }


def nanochat_tensors(weights: dict[str, Tensor], shape: ModelConfig) -> dict[str, Tensor]:
    """Our weights of architecture `modern` under the names of transformers' NanoChat.

    It turns number i of a head with number i + k / 2, as (odd, even), where ours are the pairs
    (2i, 2i + 1); so the rows of queries and keys come in that order, and their products stay.
    """
    size = shape.n_embd // shape.n_head
    order_k = torch.cat([torch.arange(1, size, 2), torch.arange(0, size, 2)])
    tensors = {
        "model.embed_tokens.weight": weights["token_embedding.weight"],
        "lm_head.weight": weights["head.weight"],
    }
    for layer in range(shape.n_layer):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        q_dd, k_dd, v_dd = weights[f"{ours}.attention.qkv.weight"].chunk(3)
        for name, rows_dd in (("q", q_dd), ("k", k_dd)):
            rows_hkd = rows_dd.view(shape.n_head, size, shape.n_embd)[:, order_k]
            tensors[f"{theirs}.self_attn.{name}_proj.weight"] = rows_hkd.flatten(0, 1)
        tensors[f"{theirs}.self_attn.v_proj.weight"] = v_dd.contiguous()
        for there, here in (
            ("self_attn.o_proj", "attention.proj"),
            ("mlp.fc1", "mlp.up"),
            ("mlp.fc2", "mlp.down"),
        ):
            tensors[f"{theirs}.{there}.weight"] = weights[f"{ours}.{here}.weight"]
    return tensors


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

    Raises CheckpointError for a kind of tokenizer that is not made of bytes.
    """
    kind = tokenizer.spec()["kind"]
    if kind == "byte":
        return [bytes([byte]) for byte in range(256)], []
    if kind not in ("bpe", "gpt2"):
        raise CheckpointError(
            f"tokenizer.kind {kind} has no counterpart there; train with char, byte, bpe or gpt2"
        )
    tokens = [token.encode("latin-1") for token in tokenizer.spec()["tokens"]]
    return tokens, [(tokens[left], tokens[right]) for left, right in merges_of(tokens)]


def _lettered(token: bytes) -> str:
    return "".join(BYTE_TO_UNICODE[byte] for byte in token)


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
    onnx, operations = _extra("onnx"), _extra("onnxscript").opset18
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
            custom_translation_table=_lines_in_onnx(operations, onnx.TensorProto),
            external_data=False,
            verbose=False,
        )
    return [file]


def _lines_in_onnx(op: Any, kinds: Any) -> dict[Any, Any]:
    """What places in lines are found with and PyTorch's exporter does not know, written in ONNX."""

    def isin(ids_bt: Any, among_n: Any) -> Any:
        equal_btn = op.Equal(op.Unsqueeze(ids_bt, [-1]), among_n)
        # A sum, since there may be none to be among.
        return op.Cast(
            op.ReduceSum(op.Cast(equal_btn, to=kinds.INT64), [-1], keepdims=0), to=kinds.BOOL
        )

    def cummax(x_bt: Any, dim: int) -> tuple[Any, Any]:
        assert dim == 1
        t = op.Shape(x_bt, start=1)
        square_tt = op.Expand(op.Constant(value_ints=[1]), op.Concat(t, t, axis=0))
        seen_tt = op.Cast(op.Trilu(square_tt, upper=0), to=kinds.BOOL)
        least = op.Constant(value_ints=[torch.iinfo(torch.int64).min])
        each_btt = op.Where(seen_tt, op.Unsqueeze(x_bt, [1]), least)
        largest_bt = op.ReduceMax(each_btt, [2], keepdims=0)
        # PyTorch's gives the places too, for which nobody asks.
        return largest_bt, largest_bt

    aten = torch.ops.aten
    return {aten.isin.Tensor_Tensor: isin, aten.cummax.default: cummax}


def _extra(package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        raise CheckpointError(
            f"{package} is not installed; pip install -c constraints.txt 'repro-gpt[export]'"
        ) from None
