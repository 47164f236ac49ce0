"""The learning rate at every step, and the update, against their formulas."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gpt.config import ModelConfig, TrainConfig
from gpt.model import GPT
from gpt.optimizer import learning_rate, make_optimizer


def config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "steps": 1000,
        "batch_size": 1,
        "learning_rate": 1e-3,
        "min_learning_rate": 1e-4,
        "warmup_steps": 100,
    }
    return TrainConfig(**(settings | changes))


# --- the schedule ---------------------------------------------------------------------------------


def test_the_warm_up_is_linear_and_step_zero_already_learns() -> None:
    rates = [learning_rate(step, config()) for step in range(101)]
    assert rates == pytest.approx([1e-3 * (step + 1) / 101 for step in range(101)])


def test_the_peak_comes_with_the_end_of_the_warm_up() -> None:
    rates = [learning_rate(step, config()) for step in range(1001)]
    assert rates[100] == pytest.approx(1e-3, rel=1e-12)
    assert max(rates) == rates[100]


def test_the_middle_of_the_cosine_is_the_middle_of_peak_and_minimum() -> None:
    assert learning_rate(550, config()) == pytest.approx((1e-3 + 1e-4) / 2, rel=1e-12)


def test_the_cosine_is_the_closed_form() -> None:
    for step in range(100, 1001):
        angle = math.pi * (step - 100) / 900
        expected = 1e-4 + (1e-3 - 1e-4) * math.cos(angle / 2) ** 2
        assert learning_rate(step, config()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("step", [1000, 1001, 5000])
def test_the_minimum_is_reached_at_the_end_and_kept(step: int) -> None:
    assert learning_rate(step, config()) == pytest.approx(1e-4, rel=1e-12)


def test_without_a_warm_up_the_first_step_has_the_peak() -> None:
    assert learning_rate(0, config(warmup_steps=0)) == 1e-3


def test_a_warm_up_longer_than_the_run_ends_with_it() -> None:
    short = config(steps=10, warmup_steps=100)
    rates = [learning_rate(step, short) for step in range(10)]
    assert rates == pytest.approx([1e-3 * (step + 1) / 11 for step in range(10)])


@given(steps=st.integers(0, 50), warmup=st.integers(0, 60), step=st.integers(0, 60))
def test_a_rate_is_above_zero_and_at_most_the_peak(steps: int, warmup: int, step: int) -> None:
    rate = learning_rate(step, config(steps=steps, warmup_steps=warmup))
    assert 0 < rate <= 1e-3 * (1 + 1e-12)


# --- the update -----------------------------------------------------------------------------------


def test_only_matrices_and_embeddings_decay() -> None:
    model = GPT(ModelConfig(n_layer=2, n_head=2, n_embd=16, block_size=8, bias=True), 11)
    decay = {
        id(parameter): group["weight_decay"]
        for group in make_optimizer(model, config(weight_decay=0.3), "cpu").param_groups
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        flat = "norm" in name or name.endswith("bias")
        assert decay.pop(id(parameter)) == (0.0 if flat else 0.3), name
    assert decay == {}


def test_updates_are_those_of_adamw_written_out() -> None:
    # Loshchilov & Hutter 2019, algorithm 2, with eps outside the root as PyTorch has it.
    torch.manual_seed(0)
    model = nn.ParameterDict(
        {"matrix": nn.Parameter(torch.randn(3, 4)), "vector": nn.Parameter(torch.randn(4))}
    ).double()
    beta1, beta2, rate, eps = 0.8, 0.95, 0.01, 1e-8
    optimizer = make_optimizer(
        model, config(learning_rate=rate, weight_decay=0.5, beta1=beta1, beta2=beta2), "cpu"
    )
    expected = {name: parameter.detach().clone() for name, parameter in model.items()}
    first = {name: torch.zeros_like(value) for name, value in expected.items()}
    second = {name: torch.zeros_like(value) for name, value in expected.items()}
    for step in range(1, 5):
        for name, parameter in model.items():
            gradient = torch.randn_like(parameter)
            parameter.grad = gradient
            first[name] = beta1 * first[name] + (1 - beta1) * gradient
            second[name] = beta2 * second[name] + (1 - beta2) * gradient**2
            mean = first[name] / (1 - beta1**step)
            spread = (second[name] / (1 - beta2**step)).sqrt()
            decay = 0.5 if name == "matrix" else 0.0
            expected[name] = expected[name] * (1 - rate * decay) - rate * mean / (spread + eps)
        optimizer.step()
        for name, parameter in model.items():
            torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-10, atol=1e-12)
