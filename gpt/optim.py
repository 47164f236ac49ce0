"""The optimizers of a model: AdamW, and Muon for the matrices inside its blocks.

    make_optimizers  AdamW for every parameter, or for those that Muon leaves
    Muon             momentum, orthogonalized by newton_schulz

Not here: the learning rate at a step (gpt/trainer.py), processes that divide Muon's work
(gpt/distributed.py).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from gpt.config import TrainConfig
from gpt.errors import ParamsError

# Matrices of one shape are orthogonalized in one batch of at most this many elements.
BATCH_NUMEL = 2**19
# FSDP has to gather whole updates, so Muon handles at most this many elements at a time, half a
# gigabyte. Results would differ if either constant depended on the number of processes.
PORTION_NUMEL = 2**27

# A matrix to update in place, and its momentum; both of one shape.
Update = tuple[Tensor, Tensor]


class Muon(torch.optim.Optimizer):
    """Momentum whose update is replaced by the nearest orthogonal matrix (Jordan et al. 2024).

    All directions of a matrix then move at the same rate, whatever the sizes of their gradients.
    `matrices` are (parameter, chunks): a parameter holds that many matrices along dim 0, as fused
    queries, keys and values, and each is orthogonalized by itself. Matrices of one shape go through
    the iteration in batches: one by one, small ones would take longer than the rest of a step.
    """

    def __init__(
        self,
        matrices: Sequence[tuple[Tensor, int]],
        *,
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        bfloat16: bool = False,
    ) -> None:
        group = {
            "params": [parameter for parameter, _ in matrices],
            "chunks": [chunks for _, chunks in matrices],
        }
        super().__init__([group], {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._bfloat16 = bfloat16

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update from the gradients; Nesterov momentum, decoupled weight decay."""
        for group in self.param_groups:
            pairs = zip(group["params"], group["chunks"], strict=True)
            matrices = [(p, chunks) for p, chunks in pairs if p.grad is not None]
            if not matrices:
                continue
            parameters = [p for p, _ in matrices]
            updates = self._nesterov(parameters, group["momentum"])
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            for start, stop in _portions(parameters):
                chunks = [chunks for _, chunks in matrices[start:stop]]
                self._apply(parameters[start:stop], updates[start:stop], chunks, group["lr"])

    def _nesterov(self, parameters: list[Tensor], momentum: float) -> list[Tensor]:
        for p in parameters:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        return list(torch._foreach_lerp(gradients, buffers, momentum))

    def _apply(
        self, parameters: list[Tensor], updates: list[Tensor], chunks: list[int], lr: float
    ) -> None:
        """Subtracts lr * sqrt(max(1, rows / columns)) * newton_schulz(update) in place."""
        buckets = _bucket_by_shape(_split(parameters, updates, chunks))
        stacks = (torch.stack([_wide(update) for _, update in bucket]) for bucket in buckets)
        if self._bfloat16:
            stacks = (stack_nrc.bfloat16() for stack_nrc in stacks)
        for bucket, orthogonal_nrc in zip(buckets, self._orthogonalize(stacks), strict=True):
            for (parameter, _), orthogonal in zip(bucket, orthogonal_nrc, strict=True):
                rows, columns = parameter.shape
                scale = max(1.0, rows / columns) ** 0.5
                # A tall matrix went through the iteration transposed.
                update = orthogonal.T if rows > columns else orthogonal
                parameter.sub_(update, alpha=lr * scale)

    def _orthogonalize(self, stacks: Iterable[Tensor]) -> Iterable[Tensor]:
        """newton_schulz of each stack; several processes divide the stacks among them."""
        return [newton_schulz(stack_nrc) for stack_nrc in stacks]


def _portions(parameters: list[Tensor]) -> Iterator[tuple[int, int]]:
    """Ranges of indices in order, each of at most PORTION_NUMEL elements or of one parameter."""
    start, numel = 0, 0
    for index, parameter in enumerate(parameters):
        numel += parameter.numel()
        if index > start and numel > PORTION_NUMEL:
            yield start, index
            start, numel = index, parameter.numel()
    yield start, len(parameters)


def _split(parameters: list[Tensor], updates: list[Tensor], chunks: list[int]) -> Iterator[Update]:
    """The matrices of each parameter as views, with their momentum."""
    for parameter, update, count in zip(parameters, updates, chunks, strict=True):
        yield from zip(parameter.chunk(count), update.chunk(count), strict=True)


def _bucket_by_shape(matrices: Iterable[Update]) -> list[list[Update]]:
    """Batches of one shape, tall matrices counted as wide ones, of at most BATCH_NUMEL elements."""
    by_shape: dict[tuple[int, int], list[Update]] = {}
    for parameter, update in matrices:
        rows, columns = sorted(parameter.shape)
        by_shape.setdefault((rows, columns), []).append((parameter, update))
    buckets = []
    for (rows, columns), alike in by_shape.items():
        size = max(1, BATCH_NUMEL // (rows * columns))
        buckets += [alike[start : start + size] for start in range(0, len(alike), size)]
    return buckets


def _wide(matrix: Tensor) -> Tensor:
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


def newton_schulz(x_nrc: Tensor, iterations: int = 5) -> Tensor:
    """Matrices (n, r, c), r <= c, with their singular values moved to about 1.

    The quintic Newton-Schulz iteration with Jordan's coefficients, chosen to rise steeply from 0:
    singular values end between about 0.7 and 1.2, which serves as well as exactly 1.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    rows, columns = x_nrc.shape[1:]
    x_nrc = x_nrc / (x_nrc.norm(dim=(1, 2), keepdim=True) + 1e-7)
    # In bfloat16 the shortcut for wide matrices, below, does not converge (docs/decisions.md).
    if columns < 2 * rows or x_nrc.dtype == torch.bfloat16:
        for _ in range(iterations):
            s_nrr = x_nrc @ x_nrc.mT
            p_nrr = torch.baddbmm(s_nrr, s_nrr, s_nrr, beta=b, alpha=c)
            x_nrc = torch.baddbmm(x_nrc, p_nrr, x_nrc, beta=a)
        return x_nrc
    # A step is x <- P x, where P = a + b s + c s^2 and s = x x'. All these P and s commute, so for
    # a wide matrix the P are multiplied in (r, r), and x takes part in two matmuls instead of ten.
    s_nrr = x_nrc @ x_nrc.mT
    product_nrr: Tensor | None = None
    for _ in range(iterations):
        if product_nrr is not None:
            s_nrr = p_nrr @ s_nrr @ p_nrr
        p_nrr = torch.baddbmm(s_nrr, s_nrr, s_nrr, beta=b, alpha=c)
        p_nrr.diagonal(dim1=1, dim2=2).add_(a)
        product_nrr = p_nrr if product_nrr is None else p_nrr @ product_nrr
    return x_nrc if product_nrr is None else product_nrr @ x_nrc


def make_optimizers(
    model: nn.Module,
    config: TrainConfig,
    *,
    bfloat16: bool = False,
    muon: Callable[..., Muon] = Muon,
) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov & Hutter 2019) for all parameters, or AdamW and Muon.

    With train.optimizer = muon, Muon trains `model.parameter_groups().hidden_matrices`; if
    `bfloat16`, its Newton-Schulz iteration runs in bfloat16, as in Jordan's code. Matrices and
    embeddings decay, norms and biases do not. Each param group states its peak learning rate as
    `peak_lr`. Raises ParamsError if the model does not name its matrices.
    """
    matrices = _hidden_matrices(model) if config.optimizer == "muon" else []
    in_muon = {id(parameter) for parameter, _ in matrices}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in in_muon]
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = []
    if rest:
        optimizers.append(
            torch.optim.AdamW(
                [group for group in groups if group["params"]],
                lr=config.learning_rate,
                betas=(config.beta1, config.beta2),
                fused=True,  # one kernel for all parameters
            )
        )
    if matrices:
        lr, weight_decay = config.muon_learning_rate, config.weight_decay
        optimizers.append(muon(matrices, lr=lr, weight_decay=weight_decay, bfloat16=bfloat16))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def _hidden_matrices(model: nn.Module) -> list[tuple[Tensor, int]]:
    if not hasattr(model, "parameter_groups"):
        source = getattr(getattr(model, "config", None), "source", type(model).__name__)
        raise ParamsError(
            f"model.source = {source}: train.optimizer = muon needs GPT.parameter_groups(), which "
            "names the matrices; write it as in gpt/model.py, or set train.optimizer=adamw"
        )
    matrices = cast(Any, model).parameter_groups().hidden_matrices
    return [(parameter, chunks) for parameter, chunks in matrices if parameter.requires_grad]
