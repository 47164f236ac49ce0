"""Arithmetic before training, against models that were built and PyTorch's own counter."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY
from torch.utils.flop_counter import FlopCounterMode
from trial_repository import TrialRepository
from typer.testing import CliRunner

from commands.cli import app
from commands.plan import plan, with_changes
from gpt.config import ModelConfig, TrainConfig
from gpt.evaluation.flops import flops_per_token, parameter_count, state_bytes, steps_of, tokens_of
from gpt.model import GPT, cross_entropy
from gpt.model_source import count_parameters
from gpt.optim import make_optimizers
from gpt.presets import PRESETS, resolve

SHAPES: list[dict[str, Any]] = [
    {"architecture": architecture, "bias": bias, "ngram_rows": rows}
    for architecture in ("original", "gpt2", "modern")
    for bias in (False, True)
    for rows in (0, 50)
] + [{"architecture": "modern", "line_sums": 5}]


def shape_of(**changes: Any) -> ModelConfig:
    return ModelConfig(n_layer=3, n_head=2, n_embd=48, block_size=40, **changes)


@pytest.mark.parametrize("changes", SHAPES)
def test_parameters_are_those_of_the_model(changes: dict[str, Any]) -> None:
    model = GPT(shape_of(**changes), 70, seed=0)
    assert parameter_count(model.config, 70) == count_parameters(model)


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_of_presets_are_those_of_their_models(preset: str) -> None:
    shape, _, _ = resolve(preset, {}, {})
    with torch.device("meta"):
        model = GPT(shape, 65)
    assert parameter_count(shape, 65) == count_parameters(model)


@pytest.mark.parametrize("preset", ["quick", "nanogpt-cpu"])
def test_parameters_of_presets_are_those_of_the_readme(preset: str) -> None:
    table = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    shape, _, _ = resolve(preset, {}, {})
    assert f"{parameter_count(shape, 65):,}" in table


@pytest.mark.parametrize(
    "changes",
    [
        *({"architecture": architecture} for architecture in ("original", "gpt2", "modern")),
        {"architecture": "modern", "line_sums": 40},
    ],
)
def test_operations_are_those_that_pytorch_counts(changes: dict[str, Any]) -> None:
    shape = shape_of(**changes)
    model = GPT(shape, 70, seed=0)
    ids_bt = torch.randint(70, (4, shape.block_size))
    with FlopCounterMode(display=False) as counter:
        loss = cross_entropy(model(ids_bt), ids_bt)
        loss.backward()
    counted = counter.get_total_flops() / ids_bt.numel()
    # The first layer's inputs need no gradient in one of its products.
    assert flops_per_token(shape, 70) == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_state_is_that_of_the_optimizers(optimizer: str) -> None:
    shape = shape_of(architecture="modern", ngram_rows=30)
    config = TrainConfig(
        steps=1, batch_size=2, learning_rate=1e-3, min_learning_rate=0, optimizer=optimizer
    )
    model = GPT(shape, 70, seed=0)
    optimizers = make_optimizers(model, config, "cpu")
    ids_bt = torch.randint(70, (2, shape.block_size))
    cross_entropy(model(ids_bt), ids_bt).backward()
    for one in optimizers:
        one.step()
    moments = [
        tensor
        for one in optimizers
        for state in one.state.values()
        for tensor in state.values()
        if torch.is_tensor(tensor) and tensor.dim() > 0
    ]
    parameters = list(model.parameters())
    gradients = [p.grad for p in parameters if p.grad is not None]
    held = [*parameters, *gradients, *parameters, *moments]  # parameters again: the best so far
    expected = sum(tensor.numel() * tensor.element_size() for tensor in held)
    assert state_bytes(shape, config, 70) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ("", 7),
        ("960 tokens", 3),  # of 320 a step
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


def test_a_budget_of_operations_is_spent_and_not_more_than_a_step_exceeded() -> None:
    shape, config, _ = resolve("nanogpt-cpu", {}, {"budget": "1e12 flops"})
    steps = steps_of(shape, config, 65, parameters=0)
    a_step = config.batch_size * shape.block_size * flops_per_token(shape, 65)
    assert 1e12 <= steps * a_step < 1e12 + a_step


@pytest.mark.parametrize("budget", ["20", "tokens", "-1 tokens", "1e-3 flops", "3 x"])
def test_what_is_no_budget_is_told_in_a_line(trial: TrialRepository, budget: str) -> None:
    shown = CliRunner().invoke(app, ["plan", "-S", f"train.budget={budget}", "--seconds", "0"])
    assert shown.exit_code == 2
    assert len(shown.output.splitlines()) == 1
    assert "train.budget" in shown.output


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialRepository:
    repository = TrialRepository(tmp_path / "repository")
    monkeypatch.chdir(repository.folder)
    return repository


def test_a_plan_knows_a_budget(trial: TrialRepository) -> None:
    params = with_changes(["preset=nanogpt-cpu", "train.budget=76800 tokens"])
    assert plan(params, seconds=0).tokens == 76_800


def test_a_plan_reads_changes_as_dvc_does(trial: TrialRepository) -> None:
    params = with_changes(["model.n_layer=5", "train.learning_rate=3e-4", "preset=nanogpt-cpu"])
    shape, config, _ = params.resolved()
    assert (shape.n_layer, config.learning_rate, config.batch_size) == (5, 3e-4, 12)
    found = plan(params, seconds=0)
    assert found.parameters == parameter_count(shape, 65)
    assert found.tokens == tokens_of(shape, config) == 2000 * 12 * 64
    assert found.seconds is None


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ("model.n_layers=5", "did you mean model.n_layer"),
        ("model.n_layer", "write -S KEY=VALUE"),
        ("model.n_layer=few", "model.n_layer"),
    ],
)
def test_a_change_that_cannot_be_is_told_in_a_line(
    trial: TrialRepository, change: str, wanted: str
) -> None:
    shown = CliRunner().invoke(app, ["plan", "-S", change, "--seconds", "0"])
    assert shown.exit_code == 2
    assert wanted in shown.output
    assert len(shown.output.splitlines()) == 1


def test_a_trial_tells_time_memory_and_cost(trial: TrialRepository) -> None:
    changes = ["model.n_layer=1", "model.n_embd=16", "model.ngram_rows=0", "train.steps=20"]
    words = [word for change in changes for word in ("-S", change)]
    shown = CliRunner().invoke(app, ["plan", *words, "--seconds", "0.1", "--price", "3600000"])
    assert shown.exit_code == 0, shown.output
    for name in ("parameters", "tokens", "compute", "memory", "time", "cost"):
        assert f"\n{name}" in f"\n{shown.output}"


def test_every_preset_can_be_planned() -> None:
    for preset in PRESETS:
        shape, config, _ = resolve(preset, {}, {})
        assert parameter_count(shape, 65) > 0 < tokens_of(shape, config)


def test_the_table_of_the_docs_is_what_is_computed_from_what_it_says() -> None:
    page = (REPOSITORY / "docs/scale.md").read_text(encoding="utf-8")
    computed: dict[str, list[float]] = {}
    for preset in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"):
        model, train, _ = resolve(preset, {}, {})
        parameters = parameter_count(model, 50_257)
        operations, gradients = flops_per_token(model, 50_257) * 2**19, 4 * parameters
        per_second = 0.4 * 312e12
        longer = train.model_copy(update={"budget": "20 tokens/parameter"})
        steps = steps_of(model, longer, 50_257, parameters)
        for row, value in {
            "operations a step of 2^19 tokens, 10^15": operations / 1e15,
            "weights, gradients, moments and best weights, GB": state_bytes(model, train, 50_257)
            / 1e9,
            "gradients exchanged a step, GB": gradients / 1e9,
            "8 GPUs: computing a step, s": operations / 8 / per_second,
            "8 GPUs: exchanging gradients, s": 2 * 7 / 8 * gradients / 300e9,
            "64 GPUs on 8 machines: computing, s": operations / 64 / per_second,
            "64 GPUs on 8 machines: exchanging, s": 2 * 7 / 8 * gradients / 25e9,
            "20 tokens a parameter: steps": steps,
            "of these on 8 GPUs, hours": steps * operations / 8 / per_second / 3600,
        }.items():
            computed.setdefault(row, []).append(value)
    for row, values in computed.items():
        found = re.search(rf"^\| {re.escape(row)} \|(.*)\|$", page, re.M)
        assert found is not None, row
        shown = [cell.strip().replace(",", "") for cell in found[1].split("|")]
        decimals = [len(cell.partition(".")[2]) for cell in shown]
        expected = [f"{value:.{n}f}" for value, n in zip(values, decimals, strict=True)]
        assert shown == expected, row
