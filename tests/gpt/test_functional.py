"""The functions of the blocks: a CPU's own against PyTorch's, values and slopes."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gpt.kernels import cpu as functional
from gpt.kernels.cpu import (
    causal_attention,
    gelu,
    gelu_not_kept,
    relu_squared,
    rms_norm,
    rotate,
)

Function = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def _seeded(one_thread: None) -> None:
    torch.manual_seed(0)


POINTWISE: dict[str, tuple[Function, Function]] = {
    "gelu": (gelu, lambda x: F.gelu(x, approximate="tanh")),
    "relu_squared": (relu_squared, lambda x: F.relu(x).square()),
    "rms_norm": (rms_norm, lambda x: F.rms_norm(x, x.shape[-1:])),
}


@pytest.mark.parametrize("name", POINTWISE)
def test_a_cpu_has_the_values_and_slopes_of_pytorch(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functional, "MANY", 1)
    ours, theirs = POINTWISE[name]
    x = torch.cat([torch.linspace(-12, 12, 480), torch.zeros(8)]).double().view(61, 8)
    x.requires_grad_()
    weights = torch.randn(61, 8, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)
    (slope,) = torch.autograd.grad((ours(x) * weights).sum(), x)
    (expected,) = torch.autograd.grad((theirs(x) * weights).sum(), x)
    torch.testing.assert_close(slope, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_large_gelu_has_the_values_of_a_small_one_and_is_not_kept(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functional, "MANY", 1)
    monkeypatch.setattr(functional, "PIECE", 7)
    x, weight = torch.randn(5, 3, 8).to(dtype), torch.randn(8, 8).to(dtype)

    def made(large: int) -> tuple[list[Tensor], int]:
        """y, the slopes of x and of the weight; and how many kept tensors are the size of y."""
        monkeypatch.setattr(functional, "LARGE", large)
        inputs = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        # Not a leaf, as a layer's output is none.
        before = inputs[0] * 1
        kept: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            after = gelu(before)
            with gelu_not_kept(before, after):
                y = F.linear(after, inputs[1])
        slopes = torch.autograd.grad(y.float().square().sum(), inputs)
        return [y, *slopes], sum(t.numel() == x.numel() for t in kept)

    (small, two), (large, one) = made(x.numel() + 1), made(x.numel())
    assert (two, one) == (2, 1)
    for ours, expected in zip(large, small, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("name", POINTWISE)
def test_slopes_are_those_of_small_differences(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functional, "MANY", 1)
    x = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(POINTWISE[name][0], (x,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("many", [1, 1000])
def test_a_precision_is_kept(
    name: str, dtype: torch.dtype, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functional, "MANY", many)
    assert POINTWISE[name][0](torch.randn(4, 8).to(dtype)).dtype == dtype


def attention_inputs(t: int, s: int) -> list[Tensor]:
    sizes = [(2, t, 3, 4), (2, s, 3, 4), (2, s, 3, 4)]
    return [
        torch.randn(size, dtype=torch.float64).transpose(1, 2).requires_grad_() for size in sizes
    ]


@pytest.mark.parametrize("short", [0, 128])
@pytest.mark.parametrize(("t", "s"), [(1, 1), (7, 7), (1, 7), (3, 7), (6, 7)])
def test_attention_is_the_formula_and_so_is_its_slope(
    monkeypatch: pytest.MonkeyPatch, short: int, t: int, s: int
) -> None:
    monkeypatch.setattr(functional, "SHORT", short)
    q, k, v = attention_inputs(t, s)
    scores = q @ k.mT / math.sqrt(4)
    for position in range(t):
        scores[..., position, s - t + position + 1 :] = -math.inf
    expected = scores.softmax(-1) @ v
    found = causal_attention(q, k, v)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(found)
    slopes = torch.autograd.grad((found * weights).sum(), (q, k, v))
    for slope, right in zip(
        slopes, torch.autograd.grad((expected * weights).sum(), (q, k, v)), strict=True
    ):
        torch.testing.assert_close(slope, right, rtol=1e-9, atol=1e-9)


def test_rotation_by_complex_numbers_is_that_by_sines_and_cosines() -> None:
    angles_tc = torch.randn(5, 4)
    cos_tc, sin_tc = angles_tc.cos(), angles_tc.sin()
    x_btnhk = torch.randn(2, 5, 2, 3, 8)
    found = rotate(x_btnhk, cos_tc, sin_tc)
    # Half precision takes the way of a GPU; bfloat16 keeps 8 bits.
    coarse = rotate(x_btnhk.bfloat16(), cos_tc, sin_tc)
    assert coarse.dtype == torch.bfloat16
    torch.testing.assert_close(coarse.float(), found, rtol=0.02, atol=0.02)
    for t in range(5):
        for c in range(4):
            turn = torch.tensor([[cos_tc[t, c], -sin_tc[t, c]], [sin_tc[t, c], cos_tc[t, c]]])
            pair = x_btnhk[:, t, ..., 2 * c : 2 * c + 2]
            torch.testing.assert_close(found[:, t, ..., 2 * c : 2 * c + 2], pair @ turn.T)
