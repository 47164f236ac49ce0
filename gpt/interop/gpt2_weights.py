"""GPT-2's weights under three names: Hugging Face's, nanoGPT's, and ours.

GPT-2 was released with its linear layers transposed, and Hugging Face keeps them so; nanoGPT has
them as PyTorch does. Both name the same matrices the same way, so names and shapes tell which
layout a file has. Not here: the file that a training starts from (pretrained.py).
"""

import torch
from torch import Tensor, nn

from gpt.model import GPT

Weights = dict[str, Tensor]

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


def from_gpt2(theirs: Weights) -> Weights:
    """Our names for weights under GPT-2's, as Hugging Face or nanoGPT has them; float32.

    Raises KeyError for a tensor that is missing, ValueError for one that a GPT-2 has not.
    """
    layers = (int(name.split(".")[1]) for name in theirs if name.startswith("h."))
    names = with_layers(NAMES, 1 + max(layers, default=-1))
    d = theirs["wte.weight"].shape[1]
    transposed = theirs["h.0.attn.c_attn.weight"].shape == (d, 3 * d)
    ours: Weights = {}
    for name, their_name in names.items():
        weight = theirs[f"{their_name}.weight"].float()
        if transposed and ".c_" in their_name:
            weight = weight.T.contiguous()
        ours[f"{name}.weight"] = weight
        if f"{their_name}.bias" in theirs:
            ours[f"{name}.bias"] = theirs[f"{their_name}.bias"].float()
    known = {f"{name}.{kind}" for name in names.values() for kind in ("weight", "bias")}
    if unknown := sorted(theirs.keys() - known):
        raise ValueError(unknown[0])
    return ours
