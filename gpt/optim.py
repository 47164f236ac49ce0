"""The optimizers, and the learning rate at every step.

adamw   AdamW for everything
muon    Muon for the matrices of the blocks, AdamW for embeddings, head, norms and biases
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gpt.config import TrainConfig
from gpt.distributed import Group, in_parts, like, whole

# Muon takes matrices of one shape together, up to so many numbers.
BATCH = 2**19
# Of a large model it takes some layers at a time, half a gigabyte of updates, since FSDP has to
# gather them.
PORTION = 2**27


# PyTorch marks these for its compiler at their first call, and imports it for that: a second of
# every training, which compiles nothing. The mark says to leave them as they are, to all optimizers
# of the process. Should PyTorch look for it elsewhere one day, only that second is lost.
def _mark_for_the_compiler() -> None:
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        method = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if method is not None:
            vars(method).setdefault("__dynamo_disable", method)


_mark_for_the_compiler()


class AdamW(torch.optim.AdamW):
    """PyTorch's (Loshchilov & Hutter 2019), without the import of its compiler in every first step.

    What is around PyTorch's step switches gradients off, as here, and tells the compiler of it. A
    test holds the updates to PyTorch's own.
    """

    step = torch.no_grad()(getattr(torch.optim.AdamW.step, "__wrapped__", torch.optim.AdamW.step))


def make_optimizers(
    model: nn.Module,
    config: TrainConfig,
    device: str,
    processes: Group | None = None,
    *,
    bfloat16: bool = False,
) -> list[torch.optim.Optimizer]:
    """The optimizers that train `model`; each group states its peak rate as `peak_lr`.

    With `bfloat16` Muon, which is all products, iterates in that, as its author has it. The work
    that all `processes` would do alike is shared out among them.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    muon = (
        [p for name, p in named if _is_block_matrix(name, p)] if config.optimizer == "muon" else []
    )
    in_muon = {id(p) for p in muon}
    rest = [p for _, p in named if id(p) not in in_muon]
    # Only matrices and embeddings decay, not norms and biases.
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        AdamW(
            [group for group in groups if group["params"]],
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            # One kernel for all parameters, where the device has it.
            fused=device.startswith(("cpu", "cuda")),
        )
    ]
    if muon:
        optimizers.append(
            Muon(
                muon,
                lr=config.muon_learning_rate,
                weight_decay=config.weight_decay,
                bfloat16=bfloat16,
                processes=processes,
            )
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


# The share of the steps after the warm-up in which `wsd` goes down.
WSD_DECAY = 0.2


def set_learning_rate(optimizers: list[torch.optim.Optimizer], share: float) -> None:
    """Sets every group to `share` of its peak rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = share * group["peak_lr"]


def schedule(step: int, config: TrainConfig) -> float:
    """The share of the peak rate at `step`: linear warm-up, then down to the minimum.

    cosine        half a cosine (Loshchilov & Hutter 2017), as nanoGPT has it
    linear        a straight line
    wsd           the peak, and a straight line over the last fifth (Hu et al. 2024)
    inverse_sqrt  as 1 / sqrt(step) (Vaswani et al. 2017): knows nothing of the end of the run

    Step 0 already learns, the others reach the minimum with the last step, and a warm-up longer
    than the run ends with it.
    """
    warmup = min(config.warmup_steps, config.steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    # A peak set below the preset's minimum is kept, rather than raised to it.
    least = min(1.0, config.min_learning_rate / config.learning_rate)
    if config.schedule == "inverse_sqrt":
        return max(least, math.sqrt((warmup + 1) / (step + 1)))
    progress = min(1.0, (step - warmup) / max(1, config.steps - warmup))
    share = {
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
        "linear": 1.0 - progress,
        "wsd": min(1.0, (1.0 - progress) / WSD_DECAY),
    }[config.schedule]
    return least + (1.0 - least) * share


def _is_block_matrix(name: str, parameter: Tensor) -> bool:
    return name.startswith("blocks.") and parameter.dim() == 2


class Muon(torch.optim.Optimizer):
    """Momentum whose update is replaced by the nearest orthogonal matrix (Jordan et al. 2024).

    All directions of a matrix then move at the same rate, whatever their gradients' sizes. Queries,
    keys and values, held in one matrix, are made orthogonal apart. Matrices of one shape go through
    the iteration in batches; one by one, small ones would take longer than the rest of a step.
    Large ones go alone, so that processes can share them. What is in a batch does not depend on the
    number of processes, and so neither do the bits.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        bfloat16: bool = False,
        processes: Group | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._bfloat16, self._processes = bfloat16, processes or Group()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update from the gradients; Nesterov momentum, decoupled weight decay."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            averages = []
            for p in parameters:
                if not self.state[p]:
                    self.state[p]["average"] = torch.zeros_like(p)
                averages.append(self.state[p]["average"])
            gradients = [p.grad for p in parameters]
            beta = group["momentum"]
            torch._foreach_lerp_(averages, gradients, 1 - beta)
            updates = torch._foreach_lerp(gradients, averages, beta)
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            for pairs in _portions(list(zip(parameters, updates, strict=True))):
                self._apply(pairs, group["lr"])

    def _apply(self, pairs: list[tuple[Tensor, Tensor]], rate: float) -> None:
        # Square pieces of a fused matrix, and tall ones lying down, so that shapes coincide.
        by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        sharded: list[tuple[Tensor, Tensor]] = []
        for parameter, update in pairs:
            rows, columns = parameter.shape
            pieces = 3 if rows == 3 * columns else 1
            if in_parts(parameter):
                # Only a whole matrix can be made orthogonal; each process keeps its part.
                update = whole(update)
                change = torch.zeros_like(update)
                sharded.append((parameter, change))
                parameter = change
            for target, piece in zip(parameter.chunk(pieces), update.chunk(pieces), strict=True):
                if piece.shape[0] > piece.shape[1]:
                    piece = piece.T
                by_shape.setdefault((piece.shape[0], piece.shape[1]), []).append((target, piece))
        batches: list[list[tuple[Tensor, Tensor]]] = []
        for (rows, columns), alike in by_shape.items():
            together = max(1, BATCH // (rows * columns))
            batches += [alike[at : at + together] for at in range(0, len(alike), together)]
        stacks = (torch.stack([piece for _, piece in batch]) for batch in batches)
        if self._bfloat16:
            stacks = (stack.bfloat16() for stack in stacks)
        done = self._processes.each_once(orthogonalise, stacks)
        for batch, orthogonal in zip(batches, done, strict=True):
            for (target, _), matrix in zip(batch, orthogonal, strict=True):
                rows, columns = target.shape
                scale = max(1.0, rows / columns) ** 0.5
                target.sub_(
                    matrix if matrix.shape == target.shape else matrix.T, alpha=rate * scale
                )
        for parameter, change in sharded:
            parameter.add_(like(change, parameter))


def _portions(pairs: list[tuple[Tensor, Tensor]]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """The same in order, cut where there would be more than PORTION numbers."""
    portion: list[tuple[Tensor, Tensor]] = []
    numbers = 0
    for pair in pairs:
        numbers += pair[0].numel()
        if portion and numbers > PORTION:
            yield portion
            portion, numbers = [], pair[0].numel()
        portion.append(pair)
    yield portion


def orthogonalise(x_nrc: Tensor, iterations: int = 5) -> Tensor:
    """Matrices (n, r, c), r <= c, with their singular values moved to about 1.

    The quintic Newton-Schulz iteration with Jordan's coefficients, chosen to rise steeply from 0:
    singular values end between about 0.7 and 1.2, which serves as well as exactly 1.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    rows, columns = x_nrc.shape[1:]
    x_nrc = x_nrc / (x_nrc.norm(dim=(1, 2), keepdim=True) + 1e-7)
    # In bfloat16 the short way of wide matrices, below, does not converge (docs/decisions.md).
    if columns < 2 * rows or x_nrc.dtype == torch.bfloat16:
        for _ in range(iterations):
            s_nrr = x_nrc @ x_nrc.mT
            p_nrr = torch.baddbmm(s_nrr, s_nrr, s_nrr, beta=b, alpha=c)
            x_nrc = torch.baddbmm(x_nrc, p_nrr, x_nrc, beta=a)
        return x_nrc
    # A step is x <- P x, where P = a + b s + c s^2 and s = x x'. All these P and s commute, so that
    # for a wide matrix the product of the P is gathered in (r, r): the wide x is met twice, not ten
    # times.
    s_nrr = x_nrc @ x_nrc.mT
    product_nrr: Tensor | None = None
    for _ in range(iterations):
        if product_nrr is not None:
            s_nrr = p_nrr @ s_nrr @ p_nrr
        p_nrr = torch.baddbmm(s_nrr, s_nrr, s_nrr, beta=b, alpha=c)
        p_nrr.diagonal(dim1=1, dim2=2).add_(a)
        product_nrr = p_nrr if product_nrr is None else p_nrr @ product_nrr
    return x_nrc if product_nrr is None else product_nrr @ x_nrc
