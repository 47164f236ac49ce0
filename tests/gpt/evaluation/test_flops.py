"""Arithmetic before training, against PyTorch's own counter, real optimizers and the docs."""

import re
from typing import Any

import pytest
import torch
from conftest import REPOSITORY
from torch.utils.flop_counter import FlopCounterMode

from gpt.config import ModelConfig, TrainConfig
from gpt.evaluation.flops import flops_per_token, state_bytes, steps_of
from gpt.model import GPT, cross_entropy
from gpt.model_source import count_parameters, make_model, without_weights
from gpt.optim import make_optimizers
from gpt.presets import resolve


def parameters_of(shape: ModelConfig, vocab_size: int) -> int:
    with without_weights():
        return count_parameters(make_model(shape, vocab_size))


def shape_of(**changes: Any) -> ModelConfig:
    return ModelConfig(n_layer=3, n_head=2, n_embd=48, block_size=40, **changes)


@pytest.mark.parametrize("preset", ["quick", "nanogpt-cpu"])
def test_parameters_of_presets_are_those_of_the_readme(preset: str) -> None:
    table = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    shape, _, _ = resolve(preset, {}, {})
    assert f"{parameters_of(shape, 65):,}" in table


@pytest.mark.parametrize(
    "changes",
    [
        *({"architecture": architecture} for architecture in ("original", "gpt2", "modern")),
        {"architecture": "modern", "line_sums": 40},
    ],
)
def test_flops_are_those_that_pytorch_counts(changes: dict[str, Any]) -> None:
    shape = shape_of(**changes)
    model = GPT(shape, 70, seed=0)
    ids_bt = torch.randint(70, (4, shape.block_size))
    with FlopCounterMode(display=False) as counter:
        loss = cross_entropy(model(ids_bt), ids_bt)
        loss.backward()
    counted = counter.get_total_flops() / ids_bt.numel()
    # One matmul of the first layer needs no gradient of its input.
    assert flops_per_token(shape, 70) == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_state_is_that_of_the_optimizers(optimizer: str) -> None:
    shape = shape_of(architecture="modern", ngram_rows=30)
    config = TrainConfig(
        steps=1, batch_size=2, learning_rate=1e-3, min_learning_rate=0, optimizer=optimizer
    )
    model = GPT(shape, 70, seed=0)
    optimizers = make_optimizers(model, config)
    ids_bt = torch.randint(70, (2, shape.block_size))
    cross_entropy(model(ids_bt), ids_bt).backward()
    for optimizer_ in optimizers:
        optimizer_.step()
    moments = [
        tensor
        for optimizer_ in optimizers
        for state in optimizer_.state.values()
        for tensor in state.values()
        if torch.is_tensor(tensor) and tensor.dim() > 0
    ]
    parameters = list(model.parameters())
    gradients = [p.grad for p in parameters if p.grad is not None]
    tensors = [*parameters, *gradients, *parameters, *moments]  # twice: the best weights so far
    expected = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    muon = 12 * 48**2 * 3 if optimizer == "muon" else 0
    assert state_bytes(count_parameters(model), muon) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ("", 7),
        ("960 tokens", 3),  # of 320 per step
        ("961 tokens", 4),
        ("1e6 tokens", 3125),
        ("20 tokens/parameter", 63),  # of 1,000 parameters
        ("0.5 tokens/parameter", 2),
        ("1 tokens", 1),
    ],
)
def test_a_budget_becomes_steps(budget: str, steps: int) -> None:
    train = TrainConfig(
        steps=7,
        batch_size=4,
        gradient_accumulation=2,
        learning_rate=1e-3,
        min_learning_rate=0.0,
        budget=budget,
    )
    assert steps_of(shape_of(), train, 70, parameters=1000) == steps


def test_a_budget_of_flops_is_spent_and_exceeded_by_less_than_a_step() -> None:
    shape, config, _ = resolve("nanogpt-cpu", {}, {"budget": "1e12 flops"})
    steps = steps_of(shape, config, 65, parameters=0)
    per_step = config.batch_size * shape.block_size * flops_per_token(shape, 65)
    assert 1e12 <= steps * per_step < 1e12 + per_step


def test_the_table_of_the_docs_is_what_is_computed_from_what_it_says() -> None:
    page = (REPOSITORY / "docs/scale.md").read_text(encoding="utf-8")
    computed: dict[str, list[float]] = {}
    for preset in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"):
        model, train, _ = resolve(preset, {}, {})
        parameters = parameters_of(model, 50_257)
        operations, gradients = flops_per_token(model, 50_257) * 2**19, 4 * parameters
        per_second = 0.4 * 312e12
        longer = train.model_copy(update={"budget": "20 tokens/parameter"})
        steps = steps_of(model, longer, 50_257, parameters)
        for label, value in {
            "operations a step of 2^19 tokens, 10^15": operations / 1e15,
            "weights, gradients, moments and best weights, GB": state_bytes(parameters) / 1e9,
            "gradients exchanged a step, GB": gradients / 1e9,
            "8 GPUs: computing a step, s": operations / 8 / per_second,
            "8 GPUs: exchanging gradients, s": 2 * 7 / 8 * gradients / 300e9,
            "64 GPUs on 8 machines: computing, s": operations / 64 / per_second,
            "64 GPUs on 8 machines: exchanging, s": 2 * 7 / 8 * gradients / 25e9,
            "20 tokens a parameter: steps": steps,
            "of these on 8 GPUs, hours": steps * operations / 8 / per_second / 3600,
        }.items():
            computed.setdefault(label, []).append(value)
    for label, values in computed.items():
        line = re.search(rf"^\| {re.escape(label)} \|(.*)\|$", page, re.M)
        assert line is not None, label
        shown = [cell.strip().replace(",", "") for cell in line[1].split("|")]
        decimals = [len(cell.partition(".")[2]) for cell in shown]
        expected = [f"{value:.{n}f}" for value, n in zip(values, decimals, strict=True)]
        assert shown == expected, label
