"""What each head of a model looks at, as numbers and as a picture.

Attention is not an explanation of what a model does; it shows where each head takes from.

Shapes: t positions, d = n_embd, h heads, k = d / h.
"""

import io
import math
import warnings
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from gpt.model import GPT, CausalSelfAttention, apply_rotary_emb, rms_norm
from gpt.tokenizers.base import Tokenizer

SIGNS = {" ": "\u2423", "\n": "\u21b5", "\t": "\u21e5"}


@torch.inference_mode()
def attention_weights(model: GPT, ids_t: Tensor) -> list[Tensor]:
    """For each layer the weights (h, t, t) that its heads give: row i sums to 1 over 0 to i."""
    found: list[Tensor] = []

    def look(module: CausalSelfAttention, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        x_td = inputs[0][0]
        rope = inputs[1] if len(inputs) > 1 else named.get("rope")
        t, d = x_td.shape
        # As the module itself does, which does not keep them.
        qk_bt2hk = module.qkv(x_td).view(1, t, 3, module.n_head, -1)[:, :, :2]
        if rope is not None:
            qk_bt2hk = apply_rotary_emb(rms_norm(qk_bt2hk), *rope)
        q_htk, k_htk = qk_bt2hk[0].permute(1, 2, 0, 3).unbind(0)
        scores_htt = q_htk @ k_htk.mT / math.sqrt(d // module.n_head)
        hidden_tt = torch.ones(t, t, dtype=torch.bool, device=x_td.device).triu(1)
        found.append(scores_htt.masked_fill(hidden_tt, -math.inf).softmax(dim=-1).float().cpu())

    hooks = [
        module.register_forward_pre_hook(look, with_kwargs=True)
        for module in model.modules()
        if isinstance(module, CausalSelfAttention)
    ]
    try:
        model(ids_t[None].to(next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def attention_picture(model: GPT, tokenizer: Tokenizer, text: str, most: int = 24) -> bytes | None:
    """A PNG of all heads on the first `most` tokens of `text`: rows are layers, columns heads.

    None where there are fewer than two tokens, or no layer of ours to look into. Raises
    TokenizerError for a text that the model does not know.
    """
    ids = [int(token) for token in tokenizer.encode(text)][: min(most, model.config.block_size)]
    if len(ids) < 2:
        return None
    names = [_name(tokenizer.decode([token])) for token in ids]
    layers = attention_weights(model, torch.tensor(ids))
    if not layers:
        return None
    rows, columns = len(layers), layers[0].shape[0]
    size = max(1.6, 0.11 * len(ids))
    figure = Figure(figsize=(size * columns, size * rows + 0.4), dpi=110, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for row, weights_htt in enumerate(layers):
        for column, weights_tt in enumerate(weights_htt):
            axes = grid[row, column]
            axes.imshow(weights_tt.numpy(), cmap="Blues", vmin=0, vmax=1)
            axes.set_title(f"layer {row + 1}, head {column + 1}", fontsize=7)
            axes.set_xticks(range(len(ids)), names, fontsize=5)
            axes.set_yticks(range(len(ids)), names, fontsize=5)
            axes.tick_params(length=0, pad=1)
    made = io.BytesIO()
    with warnings.catch_warnings():
        # A character that the font lacks is a box.
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(made, metadata={"Software": None})
    return made.getvalue()


def _name(token: str) -> str:
    """A token as a label; a dollar sign would begin a formula."""
    shown = "".join(SIGNS.get(c, c if c.isprintable() else "?") for c in token)
    return shown[:6].replace("$", r"\$")
