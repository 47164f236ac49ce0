"""Kernels of a CPU against PyTorch's own forms: values and gradients."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import gpt.model
from gpt.config import ModelConfig
from gpt.kernels import cpu
from gpt.model import (
    MLP,
    NORM_EPS,
    apply_rotary_emb,
    causal_attention,
    gelu,
    relu_squared,
    rms_norm,
)

Function = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def _seeded(one_thread: None) -> None:
    torch.manual_seed(0)


POINTWISE: dict[str, tuple[Function, Function]] = {
    "gelu": (gelu, lambda x: F.gelu(x, approximate="tanh")),
    "relu_squared": (relu_squared, lambda x: F.relu(x).square()),
    "rms_norm": (rms_norm, lambda x: F.rms_norm(x, x.shape[-1:], eps=NORM_EPS)),
}


@pytest.mark.parametrize("name", POINTWISE)
def test_a_kernel_has_the_values_and_gradients_of_pytorch(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "MIN_KERNEL_NUMEL", 1)
    ours, theirs = POINTWISE[name]
    x = torch.cat([torch.linspace(-12, 12, 480), torch.zeros(8)]).double().view(61, 8)
    x.requires_grad_()
    weights = torch.randn(61, 8, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)
    (slope,) = torch.autograd.grad((ours(x) * weights).sum(), x)
    (expected,) = torch.autograd.grad((theirs(x) * weights).sum(), x)
    torch.testing.assert_close(slope, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_large_mlp_stores_no_activation_and_has_the_gradients_of_a_small_one(
    bias: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "MIN_KERNEL_NUMEL", 1)
    monkeypatch.setattr(cpu, "RECOMPUTE_CHUNK_NUMEL", 7)
    module = MLP(ModelConfig(n_layer=1, n_head=1, n_embd=8, block_size=8, bias=bias), gelu)
    x_btd = torch.randn(3, 5, 8, requires_grad=True)
    hidden_numel = 3 * 5 * 32

    def output_and_gradients(recompute_numel: int) -> tuple[list[Tensor], int]:
        """Also the number of stored tensors of the size of the hidden layer."""
        monkeypatch.setattr(cpu, "RECOMPUTE_NUMEL", recompute_numel)
        stored: list[Tensor] = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda t: stored.append(t) or t, lambda t: t
        )
        with hooks, torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            y = module(x_btd)
        gradients = torch.autograd.grad(y.float().square().sum(), [x_btd, *module.parameters()])
        return [y, *gradients], sum(t.numel() == hidden_numel for t in stored)

    small, stored_small = output_and_gradients(hidden_numel + 1)
    large, stored_large = output_and_gradients(hidden_numel)
    assert (stored_small, stored_large) == (2, 1)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == "float32" else {"rtol": 0.05, "atol": 0.05}
    for ours, expected in zip(large, small, strict=True):
        assert ours.dtype == expected.dtype
        torch.testing.assert_close(ours, expected, **tolerance)


@pytest.mark.parametrize("name", POINTWISE)
def test_gradients_are_those_of_finite_differences(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "MIN_KERNEL_NUMEL", 1)
    x = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(POINTWISE[name][0], (x,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("many", [1, 1000])
def test_a_precision_is_kept(
    name: str, dtype: torch.dtype, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "MIN_KERNEL_NUMEL", many)
    assert POINTWISE[name][0](torch.randn(4, 8).to(dtype)).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [64, 4096])
def test_rms_norm_is_one_function_whatever_the_dtype_and_the_number_of_elements(
    rows: int, dtype: torch.dtype
) -> None:
    assert (rows * 32 >= cpu.MIN_KERNEL_NUMEL) == (rows == 4096)
    x = (0.05 * torch.randn(rows, 32)).to(dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    expected = exact * (exact.square().mean(-1, keepdim=True) + 2.0**-23).rsqrt()
    weights = torch.randn(rows, 32)
    y = rms_norm(x)
    (gradient,) = torch.autograd.grad((y.float() * weights).sum(), x)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), exact)
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), expected, rtol=2 * rounding, atol=2 * rounding)
    assert y.float().square().mean().sqrt().item() == pytest.approx(1.0, abs=1e-3)
    scale = expected_gradient.abs().max()
    assert (gradient.double() - expected_gradient).abs().max() < 4 * rounding * scale


def attention_inputs(t: int, s: int) -> list[Tensor]:
    sizes = [(2, t, 3, 4), (2, s, 3, 4), (2, s, 3, 4)]
    return [
        torch.randn(size, dtype=torch.float64).transpose(1, 2).requires_grad_() for size in sizes
    ]


@pytest.mark.parametrize("short", [0, 128])
@pytest.mark.parametrize(("t", "s"), [(1, 1), (7, 7), (1, 7), (3, 7), (6, 7)])
def test_attention_and_its_gradient_are_those_of_the_formula(
    monkeypatch: pytest.MonkeyPatch, short: int, t: int, s: int
) -> None:
    monkeypatch.setattr(cpu, "MAX_DENSE_ATTENTION_POSITIONS", short)
    q, k, v = attention_inputs(t, s)
    scores = q @ k.mT / math.sqrt(4)
    for position in range(t):
        scores[..., position, s - t + position + 1 :] = -math.inf
    expected = scores.softmax(-1) @ v
    y = causal_attention(q, k, v)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(y)
    slopes = torch.autograd.grad((y * weights).sum(), (q, k, v))
    for slope, right in zip(
        slopes, torch.autograd.grad((expected * weights).sum(), (q, k, v)), strict=True
    ):
        torch.testing.assert_close(slope, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernels", [True, False])
def test_pairs_are_rotated_by_the_angle_of_their_position(
    kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpt.model, "CPU_KERNELS", kernels)
    angles_tc = torch.randn(5, 4)
    cos_tc, sin_tc = angles_tc.cos(), angles_tc.sin()
    x_btnhe = torch.randn(2, 5, 2, 3, 8)
    rotated = apply_rotary_emb(x_btnhe, cos_tc, sin_tc)
    # bfloat16 has 8 significant bits.
    coarse = apply_rotary_emb(x_btnhe.bfloat16(), cos_tc, sin_tc)
    assert coarse.dtype == torch.bfloat16
    torch.testing.assert_close(coarse.float(), rotated, rtol=0.02, atol=0.02)
    for t in range(5):
        for c in range(4):
            rotation = torch.tensor([[cos_tc[t, c], -sin_tc[t, c]], [sin_tc[t, c], cos_tc[t, c]]])
            pair = x_btnhe[:, t, ..., 2 * c : 2 * c + 2]
            torch.testing.assert_close(rotated[:, t, ..., 2 * c : 2 * c + 2], pair @ rotation.T)
