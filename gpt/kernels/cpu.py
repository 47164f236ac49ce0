"""CPU forms of some formulas of gpt/model.py: where PyTorch's own are a dozen small kernels that
each walk through memory, or a slow one, these have a forward and a backward of their own.

Values differ from PyTorch's by rounding alone; the tests hold both to the formulas in model.py.
Not here: GPUs, and deciding whether to use a kernel beyond the sizes below (model.py).
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Measured (docs/decisions.md, "CPU kernels"); they change speed, and values only by rounding.
MAX_DENSE_ATTENTION_POSITIONS = 128  # up to here dense matmuls beat PyTorch's blockwise kernel
MIN_KERNEL_NUMEL = 2**15  # below, the calls cost more than the arithmetic
RECOMPUTE_NUMEL = (
    2**23
)  # from here on (32 MB of float32) GELU is recomputed in backward, not stored
RECOMPUTE_CHUNK_NUMEL = 2**16  # recomputed in chunks of 256 kB, which stay in the CPU's cache


def prefers_dense_attention(q_bhte: Tensor, k_bhse: Tensor, dropout: float) -> bool:
    """Whether `dense_causal_attention` is the faster form."""
    short = q_bhte.shape[2] > 1 and k_bhse.shape[2] <= MAX_DENSE_ATTENTION_POSITIONS
    return short and q_bhte.device.type == "cpu" and not dropout


def dense_causal_attention(q_bhte: Tensor, k_bhse: Tensor, v_bhse: Tensor) -> Tensor:
    """gpt.model.causal_attention by matmuls of whole (t, s) matrices."""
    b, h, t, e = q_bhte.shape
    s = k_bhse.shape[2]
    q_nte, k_nse, v_nse = (x.reshape(b * h, -1, e) for x in (q_bhte, k_bhse, v_bhse))
    hidden_ts = torch.full((t, s), -math.inf, dtype=q_bhte.dtype).triu(1 + s - t)
    scores_nts = torch.baddbmm(hidden_ts, q_nte, k_nse.mT, alpha=e**-0.5)
    return torch.bmm(scores_nts.softmax(dim=-1), v_nse).view(b, h, t, e)


def has_complex(x: Tensor) -> bool:
    """Whether `rotate_pairs` takes x: PyTorch has complex numbers only for these dtypes."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def rotate_pairs(pairs: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs (..., c, 2) rotated by angles (..., c), as complex products: one kernel each way."""
    return torch.view_as_real(torch.view_as_complex(pairs) * torch.complex(cos, sin))


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """gpt.model.rms_norm."""
    return _RMSNorm.apply(x, eps)  # type: ignore[no-any-return, no-untyped-call]


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        y: Tensor = (x * scale).to(x.dtype)
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, None]:
        # Lengthening x does not change y, so that component of the gradient is removed.
        y, scale = ctx.saved_tensors
        grad, y = grad_y.to(scale.dtype), y.to(scale.dtype)
        along_y = (grad * y).mean(dim=-1, keepdim=True)
        return torch.addcmul(grad, y, along_y, value=-1).mul_(scale).to(grad_y.dtype), None


def relu_squared(x: Tensor) -> Tensor:
    """gpt.model.relu_squared."""
    return _ReLUSquared.apply(x)  # type: ignore[no-any-return, no-untyped-call]


class _ReLUSquared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = F.relu(x)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Tensor:
        # Where x was negative `positive` is 0, and so is the slope.
        (positive,) = ctx.saved_tensors
        slope: Tensor = (grad_y * positive).mul_(2)
        return slope


# GELU as x g with the gate g = sigmoid(u(x)), u = 2 sqrt(2 / pi) (x + 0.044715 x^3).
_SLOPE = 2 * math.sqrt(2 / math.pi)
_CUBIC = 0.044715 * _SLOPE


def gelu(x: Tensor) -> Tensor:
    """gpt.model.gelu."""
    return _GELU.apply(x)  # type: ignore[no-any-return, no-untyped-call]


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        if x.numel() >= RECOMPUTE_NUMEL:
            ctx.save_for_backward(x)
            return _gelu_in_chunks(x)
        y, gate = _gelu_and_gate(x)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(_gelu_slope(x, y, gate))
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Tensor:
        (saved,) = ctx.saved_tensors
        if saved.numel() >= RECOMPUTE_NUMEL:
            return _gelu_backward_in_chunks(saved, grad_y)
        grad_x: Tensor = grad_y * saved
        return grad_x


def _gelu_and_gate(x: Tensor) -> tuple[Tensor, Tensor]:
    slope = x.new_tensor(_SLOPE)
    gate = torch.addcmul(slope, x, x, value=_CUBIC).mul_(x).sigmoid_()
    return x * gate, gate


def _gelu_slope(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """d(x g)/dx = g + x g (1 - g) u'."""
    slope = x.new_tensor(_SLOPE)
    rest = torch.addcmul(y, y, gate, value=-1)
    return torch.addcmul(slope, x, x, value=3 * _CUBIC).mul_(rest).add_(gate)


def _gelu_in_chunks(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    for x_chunk, y_chunk in zip(_chunks(x), _chunks(y), strict=True):
        y_chunk.copy_(_gelu_and_gate(x_chunk)[0])
    return y


def _gelu_backward_in_chunks(x: Tensor, grad_y: Tensor) -> Tensor:
    grad_x = torch.empty_like(x)
    chunks = zip(_chunks(x), _chunks(grad_y), _chunks(grad_x), strict=True)
    for x_chunk, grad_y_chunk, grad_x_chunk in chunks:
        slope = _gelu_slope(x_chunk, *_gelu_and_gate(x_chunk))
        torch.mul(grad_y_chunk, slope, out=grad_x_chunk)
    return grad_x


def _chunks(x: Tensor) -> tuple[Tensor, ...]:
    return torch.split(x.reshape(-1), RECOMPUTE_CHUNK_NUMEL)


def prefers_recomputed_gelu(x: Tensor) -> bool:
    """Whether `gelu_linear` is worth it: the layer's output would take too much memory."""
    return x.requires_grad and x.device.type == "cpu" and x.numel() >= RECOMPUTE_NUMEL


def gelu_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """linear(gelu(x)), keeping x and not gelu(x) for the backward pass, which computes it again."""
    return _GELULinear.apply(x, weight, bias)  # type: ignore[no-any-return, no-untyped-call]


class _GELULinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return F.linear(_gelu_in_chunks(x), weight, bias)

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        # Under autocast x and grad_z are bfloat16, and weight is not.
        grad_y = grad_z @ weight.to(grad_z.dtype)
        grad_x = _gelu_backward_in_chunks(x, grad_y)
        grad_rows, y_rows = grad_z.flatten(0, -2), _gelu_in_chunks(x).flatten(0, -2)
        grad_weight = (grad_rows.mT @ y_rows).to(weight.dtype)
        grad_bias = grad_rows.sum(0).to(weight.dtype) if ctx.has_bias else None
        return grad_x, grad_weight, grad_bias
