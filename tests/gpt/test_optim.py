"""The updates of AdamW and Muon against their formulas, and what trains which parameter."""

from collections.abc import Iterable
from types import SimpleNamespace

import pytest
import torch
from small_trainer import train_config
from torch import Tensor, nn

from gpt.config import ModelConfig
from gpt.errors import ParamsError
from gpt.model import GPT
from gpt.optim import Muon, make_optimizers, newton_schulz
from gpt.presets import resolve

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
    config = train_config(weight_decay=0.3, optimizer=optimizer)
    decay = [
        (id(parameter), group["weight_decay"])
        for made in make_optimizers(model, config)
        for group in made.param_groups
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
    _, muon = make_optimizers(model, train_config(optimizer="muon"))
    trained = {id(parameter) for group in muon.param_groups for parameter in group["params"]}
    expected = {
        id(parameter)
        for name, parameter in model.named_parameters()
        if name.startswith("blocks.")
        and name.endswith(("qkv.weight", "proj.weight", "up.weight", "down.weight"))
    }
    assert trained == expected


def test_each_param_group_states_its_peak_learning_rate() -> None:
    settings = train_config(optimizer="muon", muon_learning_rate=0.05)
    adamw, muon = make_optimizers(small_model("gpt2"), settings)
    assert {group["peak_lr"] for group in adamw.param_groups} == {1e-3}
    assert [group["peak_lr"] for group in muon.param_groups] == [0.05]


def test_updates_are_those_of_adamw_written_out() -> None:
    # Loshchilov & Hutter 2019, algorithm 2, with eps outside the root as PyTorch has it.
    torch.manual_seed(0)
    model = nn.ParameterDict(
        {"matrix": nn.Parameter(torch.randn(3, 4)), "vector": nn.Parameter(torch.randn(4))}
    ).double()
    beta1, beta2, rate, eps = 0.8, 0.95, 0.01, 1e-8
    (optimizer,) = make_optimizers(
        model, train_config(learning_rate=rate, weight_decay=0.5, beta1=beta1, beta2=beta2)
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
            rms = (second[name] / (1 - beta2**step)).sqrt()
            decay = 0.5 if name == "matrix" else 0.0
            expected[name] = expected[name] * (1 - rate * decay) - rate * mean / (rms + eps)
        optimizer.step()
        for name, parameter in model.items():
            torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-10, atol=1e-12)


def test_a_model_of_matrices_only_is_trained_by_muon_alone() -> None:
    model = Learner(parameter_groups=True)
    model.vectors = None
    (optimizer,) = make_optimizers(model, train_config(optimizer="muon"))
    assert isinstance(optimizer, Muon)


def test_muon_for_a_model_that_does_not_name_its_matrices_is_refused_with_what_is_missing() -> None:
    with pytest.raises(
        ParamsError, match=r"model\.source = mine\.py: .*muon needs GPT\.parameter_g"
    ):
        make_optimizers(Learner(), train_config(optimizer="muon"))
    (adamw,) = make_optimizers(Learner(), train_config())
    assert isinstance(adamw, torch.optim.AdamW)


# --- Muon -----------------------------------------------------------------------------------------


def newton_schulz_by_svd(matrix: Tensor) -> Tensor:
    """What the quintic iteration of Jordan et al. 2024 does, done to the singular values alone."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / (values.square().sum().sqrt() + 1e-7)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ torch.diag(values) @ right


@pytest.mark.parametrize("shape", [(4, 4), (4, 6), (3, 8), (1, 5)])
def test_newton_schulz_moves_the_singular_values_and_keeps_the_directions(
    shape: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(6, *shape, dtype=torch.float64) * 10
    for matrix, result in zip(matrices, newton_schulz(matrices), strict=True):
        torch.testing.assert_close(result, newton_schulz_by_svd(matrix), rtol=1e-8, atol=1e-8)


def test_orthogonalized_matrices_have_singular_values_about_one() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(newton_schulz(torch.randn(20, 8, 32, dtype=torch.float64)))
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3


def test_a_wide_matrix_in_float32_is_as_near_to_the_iteration_as_a_square_one() -> None:
    torch.manual_seed(0)
    # Singular values from 1 down to 1e-6 of the largest.
    for shape in [(64, 64), (64, 256)]:
        left, values, right = torch.linalg.svd(torch.randn(shape).double(), full_matrices=False)
        matrix = left @ torch.diag(torch.logspace(0, -6, len(values)).double()) @ right
        error = newton_schulz(matrix.float()[None])[0] - newton_schulz_by_svd(matrix)
        assert error.abs().max() < 2e-4, shape


def test_a_matrix_of_zeros_stays_zero() -> None:
    assert (newton_schulz(torch.zeros(2, 3, 4)) == 0).all()


# `triple` has the shape of `qkv` and is one matrix: a parameter is not split by its shape.
SHAPES = {
    **{"square": (4, 4), "again": (4, 4), "tall": (16, 4), "wide": (4, 16)},
    **{"qkv": (12, 4), "triple": (12, 4)},
}


class Learner(nn.Module):
    """A model of somebody's own: matrices and vectors, named or not."""

    def __init__(self, parameter_groups: bool = False) -> None:
        super().__init__()
        self.config = SimpleNamespace(source="mine.py")
        self.matrices = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(*shape)) for name, shape in SHAPES.items()}
        )
        self.vectors = nn.Parameter(torch.randn(3))
        if parameter_groups:
            self.parameter_groups = lambda: SimpleNamespace(hidden_matrices=self._matrices())

    def _matrices(self) -> list[tuple[nn.Parameter, int]]:
        return [(p, 3 if name == "qkv" else 1) for name, p in self.matrices.items()]


# All of a shape at once; two 4 x 4 at a time, which parts queries from values; each alone.
# The last: of the five, two are in the first portion, and the others alone.
@pytest.mark.parametrize(("batch", "portion"), [(2**19, 2**27), (32, 2**27), (1, 2**27), (32, 33)])
def test_updates_are_those_of_muon_written_out(
    batch: int, portion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Jordan et al. 2024: Nesterov momentum, then the orthogonal matrix, larger for tall ones.
    monkeypatch.setattr("gpt.optim.BATCH_NUMEL", batch)
    monkeypatch.setattr("gpt.optim.PORTION_NUMEL", portion)
    torch.manual_seed(0)
    model = Learner(parameter_groups=True).double()
    rate, decay = 0.03, 0.4
    settings = train_config(optimizer="muon", muon_learning_rate=rate, weight_decay=decay)
    muon = make_optimizers(model, settings)[-1]
    parameters = dict(model.matrices.items())
    expected = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    average = {name: torch.zeros_like(value) for name, value in expected.items()}
    for _ in range(3):
        for name, parameter in parameters.items():
            gradient = torch.randn_like(parameter)
            parameter.grad = gradient
            average[name] = 0.95 * average[name] + 0.05 * gradient
            ahead = 0.95 * average[name] + 0.05 * gradient
            chunks = ahead.chunk(3) if name == "qkv" else [ahead]
            update = torch.cat([newton_schulz_by_svd(chunk) for chunk in chunks])
            scale = {"tall": 2.0, "triple": 3**0.5}.get(name, 1.0)
            expected[name] = expected[name] * (1 - rate * decay) - rate * scale * update
        muon.step()
        for name, parameter in parameters.items():
            torch.testing.assert_close(
                parameter.detach(), expected[name], rtol=1e-8, atol=1e-9, msg=name
            )


def test_eight_processes_have_equally_many_of_gpt2s_matrices() -> None:
    shapes: list[tuple[int, ...]] = []

    class Watched(Muon):
        def _orthogonalize(self, stacks: Iterable[Tensor]) -> list[Tensor]:
            made = list(stacks)
            shapes.extend(tuple(stack.shape) for stack in made)
            return made

    with torch.device("meta"):
        model = GPT(resolve("gpt2", {}, {})[0], 50_257)
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    make_optimizers(model, train_config(optimizer="muon"), muon=Watched)[-1].step()
    # Queries, keys, values and what joins them; two layers of the MLP.
    assert shapes == 48 * [(1, 768, 768)] + 24 * [(1, 768, 3072)]
    by_rank = [sorted(shapes[rank::8]) for rank in range(8)]
    assert all(shapes_of_rank == by_rank[0] for shapes_of_rank in by_rank)


def test_a_large_model_is_taken_in_portions_of_half_a_gigabyte() -> None:
    gathered: list[int] = []

    class Watched(Muon):
        def _orthogonalize(self, stacks: Iterable[Tensor]) -> list[Tensor]:
            made = list(stacks)
            gathered.append(sum(stack.numel() for stack in made))
            return made

    with torch.device("meta"):
        model = GPT(resolve("gpt2-xl", {}, {})[0], 50_257)
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    make_optimizers(model, train_config(optimizer="muon"), muon=Watched)[-1].step()
    assert sum(gathered) == 48 * 12 * 1600**2
    assert 2**25 < min(gathered[:-1]) <= max(gathered) <= 2**27


def test_matrices_in_a_batch_move_as_they_would_alone() -> None:
    x = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0))
    alone = torch.stack([newton_schulz(matrix[None])[0] for matrix in x])
    torch.testing.assert_close(newton_schulz(x), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16), (64, 16), (16, 64)])
def test_updates_are_those_of_torchs_own_muon(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizers = (
        Muon([(ours, 1)], lr=0.02, weight_decay=0.1),
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
        Muon([(parameter, 1)], lr=0.02, weight_decay=0.0, bfloat16=bfloat16).step()
        assert parameter.dtype == torch.float32
        moved.append(parameter.detach() - start)
    exact, rounded = moved
    assert 0 < (rounded - exact).norm() < 0.03 * exact.norm()


def test_queries_keys_and_values_in_one_parameter_are_orthogonalized_separately() -> None:
    generator = torch.Generator().manual_seed(0)
    start, gradient = (torch.randn(48, 16, generator=generator) for _ in range(2))
    fused = nn.Parameter(start.clone())
    fused.grad = gradient.clone()
    separate = [nn.Parameter(chunk.clone()) for chunk in start.chunk(3)]
    for parameter, chunk in zip(separate, gradient.chunk(3), strict=True):
        parameter.grad = chunk.clone()
    for matrices in ([(fused, 3)], [(parameter, 1) for parameter in separate]):
        Muon(matrices, lr=0.02, weight_decay=0.0).step()
    torch.testing.assert_close(fused.detach(), torch.cat([p.detach() for p in separate]))
