"""The learning rate at every step, and the updates of AdamW and Muon, against their formulas."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gpt.config import ModelConfig, TrainConfig
from gpt.distributed import Group
from gpt.model import GPT
from gpt.optim import AdamW, Muon, make_optimizers, orthogonalise, schedule, set_learning_rate
from gpt.presets import resolve


def config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "steps": 1000,
        "batch_size": 1,
        "learning_rate": 1e-3,
        "min_learning_rate": 1e-4,
        "warmup_steps": 100,
    }
    return TrainConfig(**(settings | changes))


def learning_rate(step: int, settings: TrainConfig) -> float:
    return schedule(step, settings) * settings.learning_rate


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


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # From the peak at step 100 to the minimum at step 1000: at 100, 550, 820, 910, 1000.
        ("linear", [1e-3, 5.5e-4, 2.8e-4, 1.9e-4, 1e-4]),
        ("wsd", [1e-3, 1e-3, 1e-3, 5.5e-4, 1e-4]),
        (
            "inverse_sqrt",
            [1e-3 * math.sqrt(101 / (step + 1)) for step in (100, 550, 820, 910, 1000)],
        ),
    ],
)
def test_the_other_schedules_are_their_closed_forms(name: str, expected: list[float]) -> None:
    settings = config(schedule=name)
    assert [learning_rate(step, settings) for step in (100, 550, 820, 910, 1000)] == pytest.approx(
        expected, rel=1e-12
    )
    # The same warm-up, and never below the minimum nor above the peak.
    assert [learning_rate(step, settings) for step in range(100)] == [
        learning_rate(step, config()) for step in range(100)
    ]
    assert learning_rate(10**6, settings) == pytest.approx(1e-4)
    assert max(learning_rate(step, settings) for step in range(1001)) == pytest.approx(1e-3)


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


def test_a_peak_below_the_minimum_is_kept() -> None:
    low = config(learning_rate=3e-5, warmup_steps=0)
    assert [learning_rate(step, low) for step in (0, 500, 1000)] == pytest.approx([3e-5] * 3)


# --- the update -----------------------------------------------------------------------------------


def small_model(architecture: str) -> GPT:
    shape = ModelConfig(
        architecture=architecture, n_layer=2, n_head=2, n_embd=16, block_size=8, bias=True
    )
    return GPT(shape, 11)


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_parameter_is_trained_once_and_only_matrices_and_embeddings_decay(
    architecture: str, optimizer: str
) -> None:
    model = small_model(architecture)
    decay = [
        (id(parameter), group["weight_decay"])
        for one in make_optimizers(model, config(weight_decay=0.3, optimizer=optimizer), "cpu")
        for group in one.param_groups
        for parameter in group["params"]
    ]
    expected = {
        id(parameter): 0.0 if "norm" in name or name.endswith("bias") else 0.3
        for name, parameter in model.named_parameters()
    }
    assert sorted(decay) == sorted(expected.items())


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_muon_trains_the_matrices_of_the_blocks_and_nothing_else(architecture: str) -> None:
    model = small_model(architecture)
    _, muon = make_optimizers(model, config(optimizer="muon"), "cpu")
    found = {id(parameter) for group in muon.param_groups for parameter in group["params"]}
    expected = {
        id(parameter)
        for name, parameter in model.named_parameters()
        if name.startswith("blocks.")
        and name.endswith(("qkv.weight", "proj.weight", "up.weight", "down.weight"))
    }
    assert found == expected


def test_every_optimizer_is_set_to_the_share_of_its_own_peak() -> None:
    settings = config(optimizer="muon", muon_learning_rate=0.05)
    optimizers = make_optimizers(small_model("gpt2"), settings, "cpu")
    for share in (0.5, 0.25, 1.0):
        set_learning_rate(optimizers, share)
        rates = [{group["lr"] for group in one.param_groups} for one in optimizers]
        assert rates == [{share * 1e-3}, {share * 0.05}]


def test_updates_are_those_of_adamw_written_out() -> None:
    # Loshchilov & Hutter 2019, algorithm 2, with eps outside the root as PyTorch has it.
    torch.manual_seed(0)
    model = nn.ParameterDict(
        {"matrix": nn.Parameter(torch.randn(3, 4)), "vector": nn.Parameter(torch.randn(4))}
    ).double()
    beta1, beta2, rate, eps = 0.8, 0.95, 0.01, 1e-8
    (optimizer,) = make_optimizers(
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


def test_updates_are_to_the_bit_those_of_torchs_own_adamw() -> None:
    made = {}
    for kind in (AdamW, torch.optim.AdamW):
        weight = nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4))
        optimizer = kind([weight], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1, fused=True)
        for step in range(5):
            optimizer.zero_grad()
            (weight**3 * (step + 1)).sum().backward()
            optimizer.step()
        made[kind] = weight.detach(), optimizer.state_dict()
        assert not weight.detach().equal(torch.linspace(-1, 1, 12).view(3, 4))
    (ours, our_state), (theirs, their_state) = made.values()
    assert torch.equal(ours, theirs)
    assert our_state["param_groups"] == their_state["param_groups"]


def test_a_training_loads_neither_the_compiler_nor_what_shards_a_model() -> None:
    code = (
        "import sys, torch; from gpt.config import TrainConfig; import gpt.trainer; "
        "from gpt.optim import make_optimizers; from gpt.distributed import Group; "
        "settings = TrainConfig(steps=1, batch_size=1, learning_rate=1e-3, "
        "min_learning_rate=0.0, optimizer='muon'); "
        "model = torch.nn.ModuleDict({'blocks': torch.nn.Linear(4, 4)}); "
        "optimizers = make_optimizers(model, settings, 'cpu', Group()); "
        "model['blocks'](torch.ones(1, 4)).sum().backward(); "
        "[(one.step(), one.zero_grad(), one.load_state_dict(one.state_dict())) "
        "for one in optimizers]; "
        "sys.exit(len(optimizers) != 2 or 'torch._dynamo' in sys.modules "
        "or 'torch.distributed.tensor' in sys.modules)"
    )
    repository = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=repository, check=False).returncode == 0


# --- Muon -----------------------------------------------------------------------------------------


def newton_schulz_by_svd(matrix: Tensor) -> Tensor:
    """What the quintic iteration of Jordan et al. 2024 does, done to the singular values alone."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / (values.square().sum().sqrt() + 1e-7)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ torch.diag(values) @ right


@pytest.mark.parametrize("shape", [(4, 4), (4, 6), (3, 8), (1, 5)])
def test_orthogonalising_moves_the_singular_values_and_keeps_the_directions(
    shape: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(6, *shape, dtype=torch.float64) * 10
    found = orthogonalise(matrices)
    for matrix, result in zip(matrices, found, strict=True):
        torch.testing.assert_close(result, newton_schulz_by_svd(matrix), rtol=1e-8, atol=1e-8)


def test_orthogonalised_matrices_have_singular_values_about_one() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(20, 8, 32, dtype=torch.float64)))
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3


def test_a_wide_matrix_in_float32_is_as_near_to_the_iteration_as_a_square_one() -> None:
    torch.manual_seed(0)
    # Singular values from 1 down to 1e-6 of the largest.
    for shape in [(64, 64), (64, 256)]:
        left, values, right = torch.linalg.svd(torch.randn(shape).double(), full_matrices=False)
        matrix = left @ torch.diag(torch.logspace(0, -6, len(values)).double()) @ right
        error = orthogonalise(matrix.float()[None])[0] - newton_schulz_by_svd(matrix)
        assert error.abs().max() < 2e-4, shape


def test_a_matrix_of_zeros_stays_zero() -> None:
    assert (orthogonalise(torch.zeros(2, 3, 4)) == 0).all()


SHAPES = {"square": (4, 4), "again": (4, 4), "tall": (16, 4), "wide": (4, 16), "qkv": (12, 4)}


# All of a shape together; two 4 x 4 at a time, which parts queries from values; each alone.
# The last: of the five, two go in the first portion, and the others alone.
@pytest.mark.parametrize(("batch", "portion"), [(2**19, 2**27), (32, 2**27), (1, 2**27), (32, 33)])
def test_updates_are_those_of_muon_written_out(
    batch: int, portion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Jordan et al. 2024: Nesterov momentum, then the orthogonal matrix, larger for tall ones.
    monkeypatch.setattr("gpt.optim.BATCH", batch)
    monkeypatch.setattr("gpt.optim.PORTION", portion)
    torch.manual_seed(0)
    matrices = {name: nn.Parameter(torch.randn(*shape)) for name, shape in SHAPES.items()}
    model = nn.ModuleDict({"blocks": nn.ParameterDict(matrices), "rest": nn.Linear(1, 1)}).double()
    rate, decay = 0.03, 0.4
    settings = config(optimizer="muon", muon_learning_rate=rate, weight_decay=decay)
    muon = make_optimizers(model, settings, "cpu")[-1]
    parameters = dict(model["blocks"].items())
    expected = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    average = {name: torch.zeros_like(value) for name, value in expected.items()}
    for _ in range(3):
        for name, parameter in parameters.items():
            gradient = torch.randn_like(parameter)
            parameter.grad = gradient
            average[name] = 0.95 * average[name] + 0.05 * gradient
            ahead = 0.95 * average[name] + 0.05 * gradient
            pieces = ahead.chunk(3) if name == "qkv" else [ahead]
            update = torch.cat([newton_schulz_by_svd(piece) for piece in pieces])
            scale = 2.0 if name == "tall" else 1.0
            expected[name] = expected[name] * (1 - rate * decay) - rate * scale * update
        muon.step()
        for name, parameter in parameters.items():
            torch.testing.assert_close(
                parameter.detach(), expected[name], rtol=1e-8, atol=1e-9, msg=name
            )


def test_eight_processes_have_equally_many_of_gpt2s_matrices() -> None:
    shapes: list[tuple[int, ...]] = []

    class Seeing(Group):
        def each_once(self, work: Any, inputs: Any) -> list[Tensor]:
            stacks = list(inputs)
            shapes.extend(tuple(stack.shape) for stack in stacks)
            return stacks

    with torch.device("meta"):
        model = GPT(resolve("gpt2", {}, {})[0], 50_257)
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    matrices = [p for name, p in model.named_parameters() if "blocks" in name and p.dim() == 2]
    Muon(matrices, lr=0.02, weight_decay=0.0, processes=Seeing()).step()
    # Queries, keys, values and what joins them; two layers of the MLP.
    assert shapes == 48 * [(1, 768, 768)] + 24 * [(1, 768, 3072)]
    first, *others = [sorted(shapes[rank::8]) for rank in range(8)]
    assert all(share == first for share in others)


def test_a_large_model_is_taken_in_portions_of_half_a_gigabyte() -> None:
    gathered: list[int] = []

    class Counting(Group):
        def each_once(self, work: Any, inputs: Any) -> list[Tensor]:
            stacks = list(inputs)
            gathered.append(sum(stack.numel() for stack in stacks))
            return stacks

    with torch.device("meta"):
        model = GPT(resolve("gpt2-xl", {}, {})[0], 50_257)
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    matrices = [p for name, p in model.named_parameters() if "blocks" in name and p.dim() == 2]
    Muon(matrices, lr=0.02, weight_decay=0.0, processes=Counting()).step()
    assert sum(gathered) == 48 * 12 * 1600**2
    assert 2**25 < min(gathered[:-1]) <= max(gathered) <= 2**27


def test_matrices_in_a_batch_move_as_they_would_alone() -> None:
    x = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0))
    alone = torch.stack([orthogonalise(one[None])[0] for one in x])
    torch.testing.assert_close(orthogonalise(x), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16), (64, 16), (16, 64)])
def test_updates_are_those_of_torchs_own_muon(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizers = (
        Muon([ours], lr=0.02, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95),
    )
    for _ in range(5):
        gradient = torch.randn(shape, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    # Theirs iterates in bfloat16, so the updates agree to about a hundredth of their size.
    moved = (theirs.detach() - start).norm()
    assert (ours.detach() - theirs.detach()).norm() < 0.02 * moved


@pytest.mark.parametrize("shape", [(32, 32), (96, 32), (128, 32), (32, 128)])
def test_updates_in_bfloat16_are_those_in_float32_but_for_its_digits(
    shape: tuple[int, int],
) -> None:
    generator = torch.Generator().manual_seed(0)
    start, gradient = (torch.randn(shape, generator=generator) for _ in range(2))
    moved = []
    for bfloat16 in (False, True):
        parameter = nn.Parameter(start.clone())
        parameter.grad = gradient.clone()
        Muon([parameter], lr=0.02, weight_decay=0.0, bfloat16=bfloat16).step()
        assert parameter.dtype == torch.float32
        moved.append(parameter.detach() - start)
    exact, rounded = moved
    assert 0 < (rounded - exact).norm() < 0.03 * exact.norm()


def test_queries_keys_and_values_in_one_matrix_are_made_orthogonal_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    start, gradient = (torch.randn(48, 16, generator=generator) for _ in range(2))
    fused = nn.Parameter(start.clone())
    fused.grad = gradient.clone()
    pieces = [nn.Parameter(piece.clone()) for piece in start.chunk(3)]
    for piece, part in zip(pieces, gradient.chunk(3), strict=True):
        piece.grad = part.clone()
    for parameters in ([fused], pieces):
        Muon(parameters, lr=0.02, weight_decay=0.0).step()
    torch.testing.assert_close(fused.detach(), torch.cat([p.detach() for p in pieces]))
