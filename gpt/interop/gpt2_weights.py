"""GPT-2's weights under three names: Hugging Face's, nanoGPT's, and ours.

GPT-2 was released with its linear layers transposed, and Hugging Face keeps them so; nanoGPT has
them as PyTorch does. Both name the same matrices the same way, so names and shapes tell which
layout a file has.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gpt.config import ModelConfig
from gpt.corpus.downloads import HubFile, fetch_from_hub
from gpt.errors import CheckpointError
from gpt.model import GPT
from gpt.model_source import make_model, without_weights

Weights = dict[str, Tensor]

# What train.init_from may name without a file.
HUGGING_FACE = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")

# Our names and theirs; those of a block stand behind `blocks.0.` and `h.0.`.
TOP_NAMES = {"token_embedding": "wte", "position_embedding": "wpe", "norm": "ln_f"}
BLOCK_NAMES = {
    "norm_1": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.proj": "attn.c_proj",
    "norm_2": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
# Theirs that we skip: the causal mask of old versions, and the head, which is the token embedding.
SKIPPED = ("attn.bias", "attn.masked_bias", "lm_head.weight")
PREFIXES = ("_orig_mod.", "module.", "transformer.")
VOCAB_PADDING = 64  # vocabularies are often padded to a multiple, with ids that no text has
LAYER_NORM_EPSILON = 1e-5  # PyTorch's default, which our GPT-2 has too


def has_only(model: nn.Module, block: type[nn.Module]) -> bool:
    """Whether all of a model of ours is blocks of one class, without additional embeddings."""
    return (
        isinstance(model, GPT)
        and all(isinstance(module, block) for module in model.blocks)
        and not (model.config.ngram_rows or model.config.line_sums)
    )


def to_gpt2(weights: Weights, n_layer: int) -> Weights:
    """Our GPT-2's weights under Hugging Face's names, linear layers transposed.

    Where ours have no biases theirs are zero, since that layout always has them.
    """
    theirs: Weights = {}
    for ours, name in _names(n_layer).items():
        weight = weights[f"{ours}.weight"]
        theirs[f"transformer.{name}.weight"] = (weight.T if ".c_" in name else weight).contiguous()
        if name not in ("wte", "wpe"):
            bias = weights.get(f"{ours}.bias")
            theirs[f"transformer.{name}.bias"] = torch.zeros(len(weight)) if bias is None else bias
    return theirs


def from_gpt2(weights: Weights, n_layer: int) -> Weights:
    """Our names for weights under GPT-2's, as Hugging Face or nanoGPT has them; float32."""
    d = weights["wte.weight"].shape[1]
    transposed = weights["h.0.attn.c_attn.weight"].shape == (d, 3 * d)
    ours: Weights = {}
    for name, theirs in _names(n_layer).items():
        weight = weights[f"{theirs}.weight"].float()
        ours[f"{name}.weight"] = weight.T.contiguous() if transposed and ".c_" in theirs else weight
        if f"{theirs}.bias" in weights:
            ours[f"{name}.bias"] = weights[f"{theirs}.bias"].float()
    return ours


def read_pretrained(path: Path, config: ModelConfig, vocab_size: int) -> Weights:
    """The weights in `path` for a model of `config`, under our names, float32.

    `path` is a .safetensors file, a folder with a model.safetensors, or nanoGPT's ckpt.pt. Cropped
    are a longer block_size than the model's, and a vocabulary padded to a multiple of 64. Raises
    CheckpointError for weights of another shape, with the keys to set.
    """
    file = weights_file(path)
    weights = _read(file)
    if "wte.weight" in weights:
        weights = _as_ours(file, weights)
    elif "token_embedding.weight" not in weights:
        raise CheckpointError(f"{file}: its tensors are not those of a GPT-2")
    with without_weights():
        expected = make_model(config, vocab_size).state_dict()
    _crop(weights, "position_embedding.weight", config.block_size)
    padded = math.ceil(vocab_size / VOCAB_PADDING) * VOCAB_PADDING
    if len(weights["token_embedding.weight"]) == padded:
        _crop(weights, "token_embedding.weight", vocab_size)
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    expected_shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    if shapes != expected_shapes:
        difference = _difference(shapes, expected_shapes, config, vocab_size)
        raise CheckpointError(f"{file}: {difference}")
    n_head = _n_head(file.parent)
    if n_head not in (None, config.n_head):
        raise CheckpointError(f"{file}: has {n_head} heads; set model.n_head={n_head}")
    return weights


def pretrained_file(init_from: str, root: Path, cache: Path, mirror: str | None) -> Path:
    """The weights that train.init_from names: a path from `root`, or Hugging Face's, downloaded."""
    if init_from not in HUGGING_FACE:
        return weights_file((root / Path(init_from).expanduser()).resolve())
    name = "model.safetensors"
    file = HubFile(f"{init_from}/{name}", f"openai-community/{init_from}", name, repo_type="model")
    return fetch_from_hub(file, cache, mirror)


def weights_file(path: Path) -> Path:
    """The file of weights that `path` names, itself or inside it. Raises CheckpointError."""
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; train.init_from names a folder with a model.safetensors, a "
            ".safetensors file or a ckpt.pt, or gpt2, gpt2-medium, gpt2-large, gpt2-xl"
        )
    return path


def _names(n_layer: int) -> dict[str, str]:
    names = dict(TOP_NAMES)
    for layer in range(n_layer):
        names |= {
            f"blocks.{layer}.{ours}": f"h.{layer}.{name}" for ours, name in BLOCK_NAMES.items()
        }
    return names


def _read(file: Path) -> Weights:
    """The tensors of a file, their names without the prefixes of wrappers."""
    try:
        if file.suffix == ".safetensors":
            tensors = load_file(file)
        else:
            # nanoGPT's; weights_only lets a pickle hold nothing but tensors and plain values.
            loaded = torch.load(file, map_location="cpu", weights_only=True)
            tensors = loaded["model"]
            if not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
                raise ValueError("its model holds more than tensors")
    except Exception as error:  # of a strange file, the readers pass on whatever goes wrong
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{file}: not a file of weights ({reason[0]})") from None
    weights: Weights = {}
    for name, tensor in tensors.items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        if not name.endswith(SKIPPED) or name.endswith("c_attn.bias"):
            weights[name] = tensor
    return weights


def _as_ours(file: Path, weights: Weights) -> Weights:
    layers = (int(name.split(".")[1]) for name in weights if name.startswith("h."))
    try:
        ours = from_gpt2(weights, n_layer=1 + max(layers, default=-1))
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"{file}: lacks the tensor {error}; download it again") from None
    if len(ours) != len(weights):
        raise CheckpointError(f"{file}: has tensors that a GPT-2 has not; nothing of it is used")
    return ours


def _crop(weights: Weights, name: str, length: int) -> None:
    if name in weights:
        weights[name] = weights[name][:length].clone()


def _n_head(folder: Path) -> int | None:
    """From config.json next to the weights, whose shapes do not show it."""
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return int(config["model"]["n_head"] if "model" in config else config["n_head"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a bare file of weights: then params.yaml decides


Shapes = dict[str, tuple[int, ...]]


def _difference(shapes: Shapes, expected: Shapes, config: ModelConfig, vocab_size: int) -> str:
    """Which keys to set for weights of `shapes`, or one tensor that fits no key."""
    layers = {name.split(".")[1] for name in shapes if name.startswith("blocks.")}
    their_vocab_size, n_embd = shapes["token_embedding.weight"]
    if their_vocab_size != vocab_size:
        return (
            f"was trained with {their_vocab_size} ids, and the tokenizer has {vocab_size}; use the "
            "tokenizer it was trained with (GPT-2's: tokenizer.kind=gpt2)"
        )
    theirs = {
        "n_layer": len(layers),
        "n_embd": n_embd,
        "bias": any(name.endswith(".bias") for name in shapes),
    }
    positions = shapes.get("position_embedding.weight", (config.block_size,))[0]
    if positions < config.block_size:
        theirs["block_size"] = positions
    changes = [
        f"model.{key}={str(value).lower()}"
        for key, value in theirs.items()
        if value != getattr(config, key)
    ]
    if changes:
        return f"is a model of another shape; set {' '.join(changes)}"
    name = min(name for name, _ in shapes.items() ^ expected.items())
    return f"its tensor {name} does not fit; set model.architecture to that of the weights"
