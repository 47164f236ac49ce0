"""Several processes that train one model together, as the trainer sees them.

Each process holds a part of the work of every update, and all hold the same weights after it (DDP)
or a part of each weight (FSDP2). PyTorch does what is hard; this says who does which rows, and how
a whole tensor comes to be and is taken apart. A `Group` of one does nothing, at no cost.

What an update consists of does not depend on the number of processes: its rows are those of the
passes of gpt/batches.py, and only who computes them differs.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gpt.errors import ParamsError

# FSDP's modules are imported where several processes need them: they take a second.
if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


@dataclass(frozen=True)
class Share:
    """What one process computes of an update: some of its passes, and of each some of its rows."""

    passes: range
    rows: slice


class Group:
    """This process, number `rank` of the `size` that train together.

    With more than one, torch.distributed must have been initialised (repro/processes.py).
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, shows and saves."""
        return self.rank == 0

    def share(self, passes: int, rows: int) -> Share:
        """This process's part of an update of so many passes of so many rows.

        Whole passes where they can be shared out evenly, since a pass is then computed as one
        process would; else rows of each. Raises ParamsError where neither can be.
        """
        if passes % self.size == 0:
            mine = passes // self.size
            return Share(range(self.rank * mine, (self.rank + 1) * mine), slice(None))
        if rows % self.size == 0:
            mine = rows // self.size
            return Share(range(passes), slice(self.rank * mine, (self.rank + 1) * mine))
        raise ParamsError(
            f"{self.size} processes cannot share train.gradient_accumulation {passes} or "
            f"train.batch_size {rows} evenly; make one of them a multiple of {self.size}"
        )

    # --- numbers ----------------------------------------------------------------------------------

    def mean(self, value: float, device: str) -> float:
        """The mean over the processes, the same float64 on each."""
        return self.sum([value], device)[0] / self.size

    def sum(self, values: list[float], device: str) -> list[float]:
        """Each value summed over the processes."""
        return self._reduced(values, device, dist.ReduceOp.SUM) if self.size > 1 else values

    def any(self, flags: list[bool], device: str) -> list[bool]:
        """For each flag whether it is true in any process."""
        if self.size == 1:
            return flags
        raised = self._reduced([float(flag) for flag in flags], device, dist.ReduceOp.MAX)
        return [value > 0 for value in raised]

    def largest(self, tensor: Tensor) -> Tensor:
        """The largest over the processes, element by element."""
        if self.size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor

    # --- work -------------------------------------------------------------------------------------

    def each_once(self, work: Callable[[Tensor], Tensor], inputs: Iterable[Tensor]) -> list[Tensor]:
        """work(x) for each x: one process computes it, and sends it to the others.

        All have to ask, with the same inputs; `work` gives a tensor like the one it is given.
        """
        done = [
            work(x) if number % self.size == self.rank else torch.empty_like(x)
            for number, x in enumerate(inputs)
        ]
        if self.size > 1:
            for number, result in enumerate(done):
                dist.broadcast(result, src=number % self.size)
        return done

    def _reduced(self, values: list[float], device: str, how: Any) -> list[float]:
        # No float64 on Apple's GPUs, which are not trained on together either.
        numbers = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(numbers, op=how)
        return cast(list[float], numbers.tolist())

    # --- the model --------------------------------------------------------------------------------

    def spread(
        self, model: nn.Module, sharding: Literal["ddp", "fsdp"], blocks: Iterable[nn.Module]
    ) -> nn.Module:
        """What to call in place of `model`, so that its gradients become those of all processes.

        ddp   every process keeps the whole model
        fsdp  every process keeps a part of each weight; `blocks` are gathered one at a time
        """
        if self.size == 1:
            return model
        if sharding == "ddp":
            # One bucket view a gradient saves a copy of the gradients.
            return DistributedDataParallel(model, gradient_as_bucket_view=True)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        kind = next(model.parameters()).device.type
        mesh = init_device_mesh(kind, (self.size,))
        for block in blocks:
            fully_shard(block, mesh=mesh)
        return cast(nn.Module, fully_shard(model, mesh=mesh))

    @contextmanager
    def gradients(self, called: nn.Module, last: bool) -> Iterator[None]:
        """Around a backward pass; only that of the `last` pass of an update is exchanged."""
        if isinstance(called, DistributedDataParallel):
            with nullcontext() if last else called.no_sync():
                yield
            return
        if self.size > 1:
            from torch.distributed.fsdp import FSDPModule

            assert isinstance(called, FSDPModule)
            called.set_requires_gradient_sync(last)
        yield

    # --- state ------------------------------------------------------------------------------------

    def broadcast(
        self, saved: tuple[dict[str, Tensor], dict[str, Any]] | None, device: str
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What the first process gives, tensors and JSON, in all of them; on the CPU."""
        if self.size == 1:
            return saved
        facts: dict[str, Any] = {}
        if saved is not None:
            layout = [
                (name, list(tensor.shape), str(tensor.dtype).removeprefix("torch."))
                for name, tensor in saved[0].items()
            ]
            facts = {"layout": layout, "facts": saved[1]}
        # JSON, not the pickle that torch.distributed would send an object as.
        text = json.dumps(facts).encode()
        length = torch.tensor([len(text)], device=device)
        dist.broadcast(length, src=0)
        if self.first:
            letters = torch.tensor(list(text), dtype=torch.uint8, device=device)
        else:
            letters = torch.empty(int(length), dtype=torch.uint8, device=device)
        dist.broadcast(letters, src=0)
        facts = json.loads(bytes(letters.tolist()))
        if not facts:
            return None
        tensors = {}
        for name, shape, dtype in facts["layout"]:
            if saved is not None:
                tensor = saved[0][name].to(device)
            else:
                tensor = torch.empty(shape, dtype=getattr(torch, dtype), device=device)
            dist.broadcast(tensor, src=0)
            tensors[name] = tensor.cpu()
        return tensors, facts["facts"]


def in_parts(tensor: Tensor) -> TypeGuard["DTensor"]:
    """Whether each process has a part of the tensor."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may lie in parts; then every process has to ask for it."""
    return tensor.full_tensor() if in_parts(tensor) else tensor


def like(tensor: Tensor, model: Tensor) -> Tensor:
    """A whole tensor taken apart as `model` is, if it is."""
    if not in_parts(model):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    # Each process has all of it, so nothing is sent.
    return distribute_tensor(
        tensor.to(model.device), model.device_mesh, model.placements, src_data_rank=None
    )


def load_whole(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """load_state_dict from whole tensors, whatever way the model lies."""
    own = model.state_dict()
    model.load_state_dict(
        {name: like(tensor, own[name]) if name in own else tensor for name, tensor in state.items()}
    )
