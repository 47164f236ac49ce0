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

# Our names and theirs, {} for the number of a layer.
NAMES = {
    "token_embedding": "wte",
    "position_embedding": "wpe",
    "norm": "ln_f",
    "blocks.{}.norm_1": "h.{}.ln_1",
    "blocks.{}.attention.qkv": "h.{}.attn.c_attn",
    "blocks.{}.attention.proj": "h.{}.attn.c_proj",
    "blocks.{}.norm_2": "h.{}.ln_2",
    "blocks.{}.mlp.up": "h.{}.mlp.c_fc",
    "blocks.{}.mlp.down": "h.{}.mlp.c_proj",
}
# Theirs that we skip: the causal mask of old versions, and the head, which is the token embedding.
SKIPPED = (".attn.bias", ".attn.masked_bias", "lm_head.weight")
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


def with_layers(names: dict[str, str], n_layer: int) -> dict[str, str]:
    """`names` such as NAMES, those with {} once for each layer."""
    return {a.format(i): b.format(i) for i in range(n_layer) for a, b in names.items()}


def rename(weights: Weights, names: dict[str, str], n_layer: int) -> Weights:
    """Our GPT-2's weights under their `names`, with zeros for biases that ours do not have."""
    theirs: Weights = {}
    for ours, name in with_layers(names, n_layer).items():
        weight = theirs[f"{name}.weight"] = weights[f"{ours}.weight"].cpu().contiguous()
        if "embedding" not in ours:
            bias = weights.get(f"{ours}.bias")
            theirs[f"{name}.bias"] = torch.zeros(len(weight)) if bias is None else bias.cpu()
    return theirs


def to_gpt2(weights: Weights, n_layer: int) -> Weights:
    """Our GPT-2's weights under Hugging Face's names, linear layers transposed."""
    return {
        f"transformer.{name}": tensor.t().contiguous() if ".c_" in name else tensor
        for name, tensor in rename(weights, NAMES, n_layer).items()
    }


def read_pretrained(file: Path, config: ModelConfig, vocab_size: int) -> Weights:
    """The weights in `file` for a model of `config`, under our names, float32.

    `file` is of safetensors or nanoGPT's ckpt.pt. Cropped are a longer block_size than the model's,
    and a vocabulary padded to a multiple of 64. Raises CheckpointError for weights of another
    shape, with the keys to set.
    """
    weights = _read(file)
    if "wte.weight" in weights:
        weights = _from_gpt2(file, weights)
    elif "token_embedding.weight" not in weights:
        raise CheckpointError(f"{file}: its tensors are not those of a GPT-2")
    with without_weights():
        expected = make_model(config, vocab_size).state_dict()
    _crop(weights, "position_embedding.weight", config.block_size)
    padded = math.ceil(vocab_size / VOCAB_PADDING) * VOCAB_PADDING
    if len(weights["token_embedding.weight"]) == padded:
        _crop(weights, "token_embedding.weight", vocab_size)
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    different = shapes.items() ^ {name: tensor.shape for name, tensor in expected.items()}.items()
    if different:
        fix = _keys_to_set(shapes, config, vocab_size)
        if not fix:
            name = min(name for name, _ in different)
            fix = f"its tensor {name} does not fit; set model.architecture to that of the weights"
        raise CheckpointError(f"{file}: {fix}")
    n_head = _n_head(file.parent)
    if n_head not in (None, config.n_head):
        raise CheckpointError(f"{file}: has {n_head} heads; set model.n_head={n_head}")
    return weights


def pretrained_file(init_from: str, root: Path, cache: Path, mirror: str | None) -> Path:
    """The file of weights that train.init_from names, which is downloaded if it is Hugging Face's.

    Else it is a file, or a folder that holds one, from `root`. Raises CheckpointError, DataError.
    """
    name = "model.safetensors"
    if init_from in HUGGING_FACE:
        repo = f"openai-community/{init_from}"
        return fetch_from_hub(HubFile(f"{init_from}/{name}", repo, name, "model"), cache, mirror)
    path = (root / Path(init_from).expanduser()).resolve()
    if path.is_dir():
        path /= name
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; train.init_from names a folder with a {name}, a .safetensors "
            f"file or a ckpt.pt, or {', '.join(HUGGING_FACE)}"
        )
    return path


def _read(file: Path) -> Weights:
    """The tensors of a file, their names without the prefixes of wrappers."""
    try:
        if file.suffix == ".safetensors":
            tensors = load_file(file)
        else:
            # nanoGPT's; weights_only lets a pickle hold nothing but tensors and plain values.
            tensors = torch.load(file, map_location="cpu", weights_only=True)["model"]
            if not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
                raise ValueError("its model holds more than tensors")
    except Exception as error:  # of a strange file, the readers pass on whatever goes wrong
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{file}: not a file of weights ({reason[0]})") from None
    weights: Weights = {}
    for name, tensor in tensors.items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        if not name.endswith(SKIPPED):
            weights[name] = tensor
    return weights


def _from_gpt2(file: Path, weights: Weights) -> Weights:
    """Our names for weights under GPT-2's, as Hugging Face or nanoGPT has them; float32."""
    layers = (int(name.split(".")[1]) for name in weights if name.startswith("h."))
    ours: Weights = {}
    try:
        d = weights["wte.weight"].shape[1]
        transposed = weights["h.0.attn.c_attn.weight"].shape == (d, 3 * d)
        for name, theirs in with_layers(NAMES, 1 + max(layers, default=-1)).items():
            weight = weights[f"{theirs}.weight"].float()
            if transposed and ".c_" in theirs:
                weight = weight.T.contiguous()
            ours[f"{name}.weight"] = weight
            if f"{theirs}.bias" in weights:
                ours[f"{name}.bias"] = weights[f"{theirs}.bias"].float()
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


def _keys_to_set(shapes: dict[str, torch.Size], config: ModelConfig, vocab_size: int) -> str:
    """Which keys to set for weights of `shapes`; "" where none explains the difference."""
    layers = {name.split(".")[1] for name in shapes if name.startswith("blocks.")}
    their_vocab_size, n_embd = shapes["token_embedding.weight"]
    if their_vocab_size != vocab_size:
        return (
            f"was trained with {their_vocab_size} ids, and the tokenizer has {vocab_size}; use the "
            "tokenizer it was trained with (GPT-2's: tokenizer.kind=gpt2)"
        )
    positions = shapes.get("position_embedding.weight", (config.block_size,))[0]
    theirs = {
        "n_layer": len(layers),
        "n_embd": n_embd,
        "bias": any(name.endswith(".bias") for name in shapes),
        "block_size": positions,
    }
    changes = [
        f"model.{key}={str(value).lower()}"
        for key, value in theirs.items()
        if value != getattr(config, key)
    ]
    return f"is a model of another shape; set {' '.join(changes)}" if changes else ""
