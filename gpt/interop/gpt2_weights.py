"""Weights as others name them: GPT-2's of Hugging Face, nanoGPT's, and our own.

GPT-2 was released with its linear layers transposed, and Hugging Face keeps them so; nanoGPT has
them as PyTorch does. Both name the same matrices the same way, so that a file says by its names and
shapes which it is.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from gpt.config import ModelConfig
from gpt.errors import CheckpointError
from gpt.model_source import make_model, without_weights

Weights = dict[str, Tensor]

# Ours and theirs; of a block, behind `blocks.0.` and `h.0.`.
WHOLE = {"token_embedding": "wte", "position_embedding": "wpe", "norm": "ln_f"}
BLOCK = {
    "norm_1": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.proj": "attn.c_proj",
    "norm_2": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
# Of theirs: the causal mask of old versions, and the head, which is the token embedding again.
LEFT_OUT = ("attn.bias", "attn.masked_bias", "lm_head.weight")
PREFIXES = ("_orig_mod.", "module.", "transformer.")
# Vocabularies are often filled up to a multiple of this, with ids that no text has.
ROUND = 64


def to_gpt2(weights: Weights, n_layer: int) -> Weights:
    """Our weights of architecture `gpt2` under Hugging Face's names, linear layers transposed.

    Where ours have no biases theirs are zero, since that layout always has them.
    """
    theirs: Weights = {}
    for ours, name in _names(n_layer).items():
        weight = weights[f"{ours}.weight"]
        theirs[f"transformer.{name}.weight"] = (weight.T if ".c_" in name else weight).contiguous()
        if name not in ("wte", "wpe"):
            bias = weights.get(f"{ours}.bias")
            # As many as the layer has outputs.
            theirs[f"transformer.{name}.bias"] = torch.zeros(len(weight)) if bias is None else bias
    return theirs


def from_gpt2(weights: Weights, n_layer: int) -> Weights:
    """Weights under GPT-2's names, as Hugging Face or nanoGPT has them, under ours."""
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

    `path` is a .safetensors file, a folder with a model.safetensors, or nanoGPT's ckpt.pt. A longer
    block_size than the model's is cropped, and so is a vocabulary filled up to a multiple of 64.
    Raises CheckpointError that says which keys to set for a model of another shape.
    """
    file = weights_file(path)
    weights = _read(file)
    if "wte.weight" in weights:
        weights = _as_ours(file, weights)
    elif "token_embedding.weight" not in weights:
        raise CheckpointError(f"{file}: its tensors are not those of a GPT-2")
    with without_weights():
        expected = make_model(config, vocab_size).state_dict()
    for name, length in (
        ("position_embedding.weight", config.block_size),
        ("token_embedding.weight", vocab_size),
    ):
        if name in weights:
            rows = len(weights[name])
            filled_up = rows == math.ceil(vocab_size / ROUND) * ROUND
            if name.startswith("position") or filled_up:
                weights[name] = weights[name][:length].clone()
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    if found != wanted:
        raise CheckpointError(f"{file}: {_difference(found, wanted, config, vocab_size)}")
    heads = _heads_of(file.parent)
    if heads not in (None, config.n_head):
        raise CheckpointError(f"{file}: has {heads} heads; set model.n_head={heads}")
    return weights


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
    names = dict(WHOLE)
    for layer in range(n_layer):
        names |= {f"blocks.{layer}.{ours}": f"h.{layer}.{name}" for ours, name in BLOCK.items()}
    return names


def _read(file: Path) -> Weights:
    """The tensors of a file, their names without what wrappers put before them."""
    try:
        if file.suffix == ".safetensors":
            tensors = load_file(file)
        else:
            # nanoGPT's; weights_only lets a pickle hold nothing but tensors and plain values.
            loaded = torch.load(file, map_location="cpu", weights_only=True)
            tensors = loaded["model"]
            if not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
                raise ValueError("its model holds more than tensors")
    except Exception as error:  # of a file of somebody else, the readers let through what they like
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{file}: not a file of weights ({reason[0]})") from None
    bare: Weights = {}
    for name, tensor in tensors.items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        if not name.endswith(LEFT_OUT) or name.endswith("c_attn.bias"):
            bare[name] = tensor
    return bare


def _as_ours(file: Path, weights: Weights) -> Weights:
    n_layer = 1 + max(
        (int(name.split(".")[1]) for name in weights if name.startswith("h.")), default=-1
    )
    try:
        ours = from_gpt2(weights, n_layer)
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"{file}: lacks the tensor {error}; it is not whole") from None
    if len(ours) != len(weights):
        raise CheckpointError(f"{file}: has tensors that a GPT-2 has not; nothing of it is used")
    return ours


def _heads_of(folder: Path) -> int | None:
    """What config.json beside the weights says, since the weights do not show it."""
    try:
        facts: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        heads = facts["model"]["n_head"] if "model" in facts else facts["n_head"]
        return int(heads)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a bare file of weights: then it is for params.yaml to say


def _difference(
    found: dict[str, Any], wanted: dict[str, Any], config: ModelConfig, vocab_size: int
) -> str:
    """Which keys describe the weights that were found, or one tensor that fits no key."""
    layers = {name.split(".")[1] for name in found if name.startswith("blocks.")}
    vocabulary, n_embd = found["token_embedding.weight"]
    if vocabulary != vocab_size:
        return (
            f"was trained with {vocabulary} ids, and the tokenizer has {vocab_size}; use the "
            "tokenizer it was trained with (GPT-2's: tokenizer.kind=gpt2)"
        )
    theirs = {
        "n_layer": len(layers),
        "n_embd": n_embd,
        "bias": any(name.endswith(".bias") for name in found),
    }
    positions = found.get("position_embedding.weight", (config.block_size,))[0]
    if positions < config.block_size:
        theirs["block_size"] = positions
    changes = [
        f"model.{key}={str(value).lower()}"
        for key, value in theirs.items()
        if value != getattr(config, key)
    ]
    if changes:
        return f"is a model of another shape; set {' '.join(changes)}"
    odd = sorted({*found.items()} ^ {*wanted.items()}, key=str)[0][0]
    return f"{odd} does not fit model.architecture {config.architecture}"
