"""The functions between a block's matrix products.

On a GPU they are PyTorch's own. On a CPU some of those are a dozen small kernels that each walk
through memory, or a slow one, so there they have a forward and a backward of their own here. Each
computes the formula in its docstring; the tests hold both to it.

Shapes: b sequences, t positions, s positions attended to (those before the t, and the t), h heads,
k numbers a head, c = k / 2 pairs.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Up to so many positions, products of whole matrices beat PyTorch's blockwise kernel on a CPU.
SHORT = 128
# Below so many numbers the calls cost more than the arithmetic, and PyTorch's own has fewer calls.
MANY = 2**15
# From so many numbers on, 32 MB, memory is dearer than computing a function a second time,
LARGE = 2**23
# which is done for so many at a time, which stay in a cache.
PIECE = 2**16


def causal_attention(
    q_bhtk: Tensor, k_bhsk: Tensor, v_bhsk: Tensor, dropout: float = 0.0
) -> Tensor:
    """softmax(q k' / sqrt(k)) v, shape (b, h, t, k), where a position sees none after it.

    The t positions of the queries are the last of the s.
    """
    b, h, t, size = q_bhtk.shape
    s = k_bhsk.shape[2]
    if q_bhtk.device.type == "cpu" and t > 1 and s <= SHORT and not dropout:
        q_ntk, k_nsk, v_nsk = (x.reshape(b * h, -1, size) for x in (q_bhtk, k_bhsk, v_bhsk))
        hidden_ts = torch.full((t, s), -math.inf, dtype=q_bhtk.dtype).triu(1 + s - t)
        scores_nts = torch.baddbmm(hidden_ts, q_ntk, k_nsk.mT, alpha=size**-0.5)
        return torch.bmm(scores_nts.softmax(dim=-1), v_nsk).view(b, h, t, size)
    visible_ts = None
    if 1 < t < s:
        visible_ts = torch.ones(t, s, dtype=torch.bool, device=q_bhtk.device).tril(s - t)
    return F.scaled_dot_product_attention(
        q_bhtk, k_bhsk, v_bhsk, attn_mask=visible_ts, dropout_p=dropout, is_causal=1 < t == s
    )


def rotate(x_btnhk: Tensor, cos_tc: Tensor, sin_tc: Tensor) -> Tensor:
    """Turns each pair (2i, 2i + 1) of the last dimension by the angle i of its position.

    Takes (b, t, ..., k), whatever lies between.
    """
    between = x_btnhk.dim() - 3
    cos = cos_tc.view(cos_tc.shape[0], *between * (1,), -1)
    sin = sin_tc.view(cos.shape)
    pairs = x_btnhk.reshape(*x_btnhk.shape[:-1], -1, 2)
    if x_btnhk.device.type == "cpu" and x_btnhk.dtype in (torch.float32, torch.float64):
        # A product of complex numbers is one kernel forward and one backward.
        turned = torch.view_as_complex(pairs) * torch.complex(cos, sin)
        return torch.view_as_real(turned).flatten(-2)
    even, odd = pairs.unbind(-1)
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2).type_as(x_btnhk)


def rms_norm(x: Tensor) -> Tensor:
    """x over the root of its mean square along the last dimension (Zhang & Sennrich 2019)."""
    if x.device.type == "cpu" and x.numel() >= MANY:
        return _RMSNormOnCPU.apply(x)  # type: ignore[no-any-return, no-untyped-call]
    return F.rms_norm(x, x.shape[-1:])


class _RMSNormOnCPU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        mean_square = norm.square_().div_(x.shape[-1])
        scale = mean_square.add_(torch.finfo(x.dtype).eps).rsqrt_()
        y: Tensor = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # What would lengthen y changes nothing, so that part of the gradient is taken out.
        y, scale = ctx.saved_tensors
        along = (gradient * y).mean(dim=-1, keepdim=True)
        return torch.addcmul(gradient, y, along, value=-1).mul_(scale)


def relu_squared(x: Tensor) -> Tensor:
    """max(0, x)^2 (So et al. 2021)."""
    if x.device.type == "cpu" and x.numel() >= MANY:
        return _ReLUSquaredOnCPU.apply(x)  # type: ignore[no-any-return, no-untyped-call]
    return F.relu(x).square()


class _ReLUSquaredOnCPU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = F.relu(x)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Where x was negative, `positive` is 0, and so is the slope.
        (positive,) = ctx.saved_tensors
        slope: Tensor = (gradient * positive).mul_(2)
        return slope


def gelu(x: Tensor) -> Tensor:
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) (Hendrycks & Gimpel 2016)."""
    if x.device.type == "cpu" and x.numel() >= MANY:
        return _GELUOnCPU.apply(x)  # type: ignore[no-any-return, no-untyped-call]
    return F.gelu(x, approximate="tanh")


class _GELUOnCPU(torch.autograd.Function):
    """The same function as x g, g = sigmoid(u(x)), u = 2 sqrt(2 / pi) (x + 0.044715 x^3)."""

    SLOPE = 2 * math.sqrt(2 / math.pi)
    CUBIC = 0.044715 * SLOPE

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        if x.numel() >= LARGE:
            ctx.save_for_backward(x)
            return gelu_in_pieces(x)
        y, gate = _GELUOnCPU.value(x)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(_GELUOnCPU.slope(x, y, gate))
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (kept,) = ctx.saved_tensors
        if kept.numel() < LARGE:
            scaled: Tensor = gradient * kept
            return scaled
        scaled = torch.empty_like(kept)
        pieces = zip(_pieces(kept), _pieces(gradient), _pieces(scaled), strict=True)
        for x, some, target in pieces:
            torch.mul(some, _GELUOnCPU.slope(x, *_GELUOnCPU.value(x)), out=target)
        return scaled

    @staticmethod
    def value(x: Tensor) -> tuple[Tensor, Tensor]:
        """x g, and g."""
        slope = x.new_tensor(_GELUOnCPU.SLOPE)
        gate = torch.addcmul(slope, x, x, value=_GELUOnCPU.CUBIC).mul_(x).sigmoid_()
        return x * gate, gate

    @staticmethod
    def slope(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
        """d(x g)/dx = g + x g (1 - g) u'."""
        slope = x.new_tensor(_GELUOnCPU.SLOPE)
        rest = torch.addcmul(y, y, gate, value=-1)
        return torch.addcmul(slope, x, x, value=3 * _GELUOnCPU.CUBIC).mul_(rest).add_(gate)


def gelu_in_pieces(x: Tensor) -> Tensor:
    """GELU of very many numbers, without memory for many times as many."""
    y = torch.empty_like(x)
    for piece, target in zip(_pieces(x), _pieces(y), strict=True):
        target.copy_(_GELUOnCPU.value(piece)[0])
    return y


def _pieces(x: Tensor) -> Sequence[Tensor]:
    pieces: Sequence[Tensor] = torch.split(x.reshape(-1), PIECE)
    return pieces


@contextmanager
def gelu_not_kept(x: Tensor, y: Tensor) -> Iterator[None]:
    """What would keep y = gelu(x) inside, if it is large, computes it again instead."""
    if not (y.requires_grad and y.device.type == "cpu" and y.numel() >= LARGE):
        yield
        return
    address = y.data_ptr()

    def pack(kept: Tensor) -> Tensor | tuple[torch.Size]:
        same = kept.data_ptr() == address and kept.numel() == x.numel()
        return (kept.shape,) if same else kept

    def unpack(packed: Tensor | tuple[torch.Size]) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        return gelu_in_pieces(x.detach()).view(packed[0])

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


def cross_entropy(logits_btv: Tensor, targets_bt: Tensor) -> Tensor:
    """Mean loss in nats a token, computed in float32."""
    return F.cross_entropy(logits_btv.flatten(0, 1).float(), targets_bt.flatten())
