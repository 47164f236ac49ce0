"""Attention maps: for every head, the weights with which each position attends to those before it.

They show what a head reads, which does not explain what the model does.

Shapes: b sequences, t positions, s attended positions, d = n_embd, h heads, e = d / h.
"""

import io
import math
import warnings
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from gpt.model import GPT, CausalSelfAttention, apply_rotary_emb, rms_norm
from gpt.tokenizers.base import Tokenizer

MAX_TOKENS = 24  # of a plot
WHITESPACE_SIGNS = {" ": "\u2423", "\n": "\u21b5", "\t": "\u21e5"}


@torch.inference_mode()
def attention_weights(model: GPT, ids_t: Tensor) -> list[Tensor]:
    """The attention weights of each layer, (h, t, s); each sums to 1 over s <= t.

    Empty for a model without a CausalSelfAttention of gpt/model.py.
    """
    layers: list[Tensor] = []

    def keep_weights(
        module: CausalSelfAttention, inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        x_btd = inputs[0]
        rope = inputs[1] if len(inputs) > 1 else options.get("rope")
        b, t, d = x_btd.shape
        # Computed again as in the module's forward, which keeps no weights.
        qk_bt2he = module.qkv(x_btd).view(b, t, 3, module.n_head, -1)[:, :, :2]
        if rope is not None:
            qk_bt2he = apply_rotary_emb(rms_norm(qk_bt2he), *rope)
        q_hte, k_hte = qk_bt2he[0].permute(1, 2, 0, 3).unbind(0)
        scores_hts = q_hte @ k_hte.mT / math.sqrt(d // module.n_head)
        future_ts = torch.ones(t, t, dtype=torch.bool, device=x_btd.device).triu(1)
        layers.append(scores_hts.masked_fill(future_ts, -math.inf).softmax(dim=-1).float().cpu())

    hooks = [
        module.register_forward_pre_hook(keep_weights, with_kwargs=True)
        for module in model.modules()
        if isinstance(module, CausalSelfAttention)
    ]
    try:
        model(ids_t[None].to(next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return layers


def attention_plot(model: GPT, tokenizer: Tokenizer, text: str) -> bytes | None:
    """A PNG of all heads on the first tokens of `text`; each row is a layer, each column a head.

    None for fewer than two tokens, or where `attention_weights` has none. Raises TokenizerError for
    a text that the tokenizer cannot encode.
    """
    ids = tokenizer.encode(text)[: min(MAX_TOKENS, model.config.block_size)].tolist()
    layers = attention_weights(model, torch.tensor(ids)) if len(ids) > 1 else []
    if not layers:
        return None
    labels = [_label(tokenizer.decode([token])) for token in ids]
    num_layers, num_heads = len(layers), len(layers[0])
    size = max(1.6, 0.11 * len(ids))
    figsize = (size * num_heads, size * num_layers + 0.4)
    figure = Figure(figsize=figsize, dpi=110, layout="constrained")
    grid = figure.subplots(num_layers, num_heads, squeeze=False)
    for (layer, head), axes in np.ndenumerate(grid):
        axes.imshow(layers[layer][head].numpy(), cmap="Blues", vmin=0, vmax=1)
        axes.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=7)
        axes.set_xticks(range(len(ids)), labels, fontsize=5)
        axes.set_yticks(range(len(ids)), labels, fontsize=5)
        axes.tick_params(length=0, pad=1)
    png = io.BytesIO()
    with warnings.catch_warnings():
        # The font draws a box for a character that it lacks.
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(png, metadata={"Software": None})
    return png.getvalue()


def _label(token: str) -> str:
    """A token as a label of at most six characters."""
    shown = "".join(WHITESPACE_SIGNS.get(c, c if c.isprintable() else "?") for c in token)
    return shown[:6].replace("$", r"\$")  # matplotlib reads $...$ as a formula
