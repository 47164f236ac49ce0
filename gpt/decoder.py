"""One new position at a time: what `GPT.forward` computes of a single token, in few calls.

Token by token a small model spends its time on calls, not on arithmetic: on modules, on views, on
functions made for whole sequences. Here stand the same formulas for t = 1, in the fewest calls that
PyTorch offers; the tests hold both to each other. For inference alone: there is no dropout.

Shapes: b sequences, d = n_embd, h heads, k = d / h, c = k / 2, s positions so far, v = vocab_size.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.cache import Cache, LayerCache
from gpt.model import GPT, GPT2Block, ModernBlock, OriginalBlock


class Decoder:
    """Reads tokens and gives the logits (b, v) after the last; remembers what it has read.

    Several new tokens go through the model itself, a single one the short way. It is known for the
    GPT of gpt/model.py alone; what is derived from it is called.
    """

    def __init__(self, model: GPT) -> None:
        self._model = model
        self._cache = Cache(model.config.n_layer, model.config.block_size)
        self._steps = (
            [_STEPS[model.config.architecture](block) for block in model.blocks]
            if type(model) is GPT
            else None
        )

    @property
    def length(self) -> int:
        """Positions read so far, at most block_size."""
        return self._cache.length

    def clear(self) -> None:
        """Forgets what was read."""
        self._cache.clear()

    def reorder(self, rows_n: Tensor) -> None:
        """Goes on from the rows `rows_n` (n,) of what was read; one may be taken several times.

        Reaches into the cache: gpt/cache.py is code that trained weights depend on, by which DVC
        would train every model again.
        """
        cache = self._cache
        if cache.recent_bt is not None:
            cache.recent_bt = cache.recent_bt[rows_n]
        if cache._line is not None:
            since_b1n, begun_b11 = cache._line
            cache._line = since_b1n[rows_n], begun_b11[rows_n]
        for layer in cache.layers:
            if layer._buffers is not None:
                keys, values = layer._buffers
                layer._buffers = keys[rows_n], values[rows_n]

    def read(self, ids_bt: Tensor) -> Tensor:
        """The logits (b, v) of the token after `ids_bt` (b, t), which go on from what was read."""
        if self._steps is None or ids_bt.shape[1] > 1:
            logits_btv: Tensor = self._model(ids_bt, self._cache)
            return logits_btv[:, -1]
        model, start = self._model, self.length
        x_bd = model.embed(ids_bt, start, self._cache)[:, 0]
        turn_1c = None
        if model.config.architecture == "modern":
            turn_1c = torch.complex(*model.angles_at(start, 1))
        for step, layer in zip(self._steps, self._cache.layers, strict=True):
            x_bd = step(x_bd, layer, turn_1c)
        return model.logits(x_bd)


class Rereader:
    """The same for any other model, which remembers nothing: it reads everything again."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._seen_bt: Tensor | None = None

    @property
    def length(self) -> int:
        """Positions read so far."""
        return 0 if self._seen_bt is None else self._seen_bt.shape[1]

    def clear(self) -> None:
        """Forgets what was read."""
        self._seen_bt = None

    def reorder(self, rows_n: Tensor) -> None:
        """Goes on from the rows `rows_n` (n,) of what was read; one may be taken several times."""
        if self._seen_bt is not None:
            self._seen_bt = self._seen_bt[rows_n]

    def read(self, ids_bt: Tensor) -> Tensor:
        """The logits (b, v) of the token after `ids_bt` (b, t), which go on from what was read."""
        seen = [] if self._seen_bt is None else [self._seen_bt]
        self._seen_bt = torch.cat([*seen, ids_bt], dim=1)
        logits_btv: Tensor = self._model(self._seen_bt)
        return logits_btv[:, -1]


class _Step:
    """A block for one position. The weights are at hand: each look into a module costs a call."""

    def __init__(self, block: nn.Module) -> None:
        assert isinstance(block, OriginalBlock | GPT2Block | ModernBlock)
        attention, mlp = block.attention, block.mlp
        self.n_head = attention.n_head
        self.qkv = attention.qkv.weight, attention.qkv.bias
        self.proj = attention.proj.weight, attention.proj.bias
        self.up = mlp.up.weight, mlp.up.bias
        self.down = mlp.down.weight, mlp.down.bias
        self.bend = mlp.bend
        if not isinstance(block, ModernBlock):
            self.norm_1 = block.norm_1.normalized_shape, block.norm_1.weight, block.norm_1.bias
            self.norm_2 = block.norm_2.normalized_shape, block.norm_2.weight, block.norm_2.bias

    def attention(self, x_bd: Tensor, cache: LayerCache, turn_1c: Tensor | None) -> Tensor:
        b, d = x_bd.shape
        k = d // self.n_head
        qkv_bd = F.linear(x_bd, *self.qkv)
        if turn_1c is None:
            q_bh1k, k_bh1k, v_bh1k = qkv_bd.view(b, 3, self.n_head, 1, k).unbind(1)
        else:
            qk_bnk = _rms_norm(qkv_bd[:, : 2 * d].reshape(b, -1, k))
            turned_bnc = torch.view_as_complex(qk_bnk.view(b, -1, k // 2, 2)) * turn_1c
            turned = torch.view_as_real(turned_bnc).view(b, 2, self.n_head, 1, k)
            q_bh1k, k_bh1k = turned.unbind(1)
            v_bh1k = qkv_bd[:, 2 * d :].view(b, self.n_head, 1, k)
        k_bhsk, v_bhsk = cache.extend(k_bh1k, v_bh1k)
        y_bh1k = F.scaled_dot_product_attention(q_bh1k, k_bhsk, v_bhsk)
        return F.linear(y_bh1k.reshape(b, d), *self.proj)

    def mlp(self, x_bd: Tensor) -> Tensor:
        return F.linear(self.bend(F.linear(x_bd, *self.up)), *self.down)


class _OriginalStep(_Step):
    def __call__(self, x_bd: Tensor, cache: LayerCache, turn_1c: Tensor | None) -> Tensor:
        x_bd = F.layer_norm(x_bd + self.attention(x_bd, cache, None), *self.norm_1)
        return F.layer_norm(x_bd + self.mlp(x_bd), *self.norm_2)


class _GPT2Step(_Step):
    def __call__(self, x_bd: Tensor, cache: LayerCache, turn_1c: Tensor | None) -> Tensor:
        x_bd = x_bd + self.attention(F.layer_norm(x_bd, *self.norm_1), cache, None)
        return x_bd + self.mlp(F.layer_norm(x_bd, *self.norm_2))


class _ModernStep(_Step):
    def __call__(self, x_bd: Tensor, cache: LayerCache, turn_1c: Tensor | None) -> Tensor:
        x_bd = x_bd + self.attention(_rms_norm(x_bd), cache, turn_1c)
        return x_bd + self.mlp(_rms_norm(x_bd))


_STEPS: dict[str, type[_OriginalStep] | type[_GPT2Step] | type[_ModernStep]] = {
    "original": _OriginalStep,
    "gpt2": _GPT2Step,
    "modern": _ModernStep,
}


def _rms_norm(x: Tensor) -> Tensor:
    """As `gpt.functional.rms_norm`, in four calls in place of a dozen."""
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_(min=1e-20)
    return x * (math.sqrt(x.shape[-1]) / length)
