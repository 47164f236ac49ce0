"""Several processes that train one model. One process never enters this file.

    ProcessGroup        collectives on plain values, and who computes which part of an update
    DistributedTrainer  a Trainer of which every process computes a part
    DistributedMuon     Muon, each matrix orthogonalized by one process

All processes hold the same weights after an update (DDP), or each a shard of every weight (FSDP2).
What an update consists of does not depend on their number: it has the micro-batches of
gpt/batches.py, and only who computes them differs.

Not here: starting the processes (repro/processes.py).
"""

import json
import math
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gpt.errors import ParamsError
from gpt.model import GPT
from gpt.optim import Muon, newton_schulz
from gpt.trainer import StepStats, Trainer

# FSDP's modules are imported where they are needed: they take a second.
if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

State = tuple[dict[str, Tensor], dict[str, Any]]


class ProcessGroup:
    """This process, number `rank` of the `size` that train together.

    torch.distributed must have been initialized. Every process has to make the same calls.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    @property
    def is_main_process(self) -> bool:
        """Whether this is the process that prints, tracks and saves."""
        return self.rank == 0

    def divide(self, micro_steps: int, sequences: int) -> tuple[range, slice]:
        """This process's micro-steps of an update, and its sequences of each micro-batch.

        Whole micro-steps where they divide evenly, since each is then computed as one process would
        compute it; else a slice of the sequences. Raises ParamsError where neither divides evenly.
        """
        if micro_steps % self.size == 0:
            count = micro_steps // self.size
            return range(self.rank * count, (self.rank + 1) * count), slice(None)
        if sequences % self.size == 0:
            count = sequences // self.size
            return range(micro_steps), slice(self.rank * count, (self.rank + 1) * count)
        raise ParamsError(
            f"{self.size} processes cannot evenly divide train.gradient_accumulation = "
            f"{micro_steps} or train.batch_size = {sequences}; make one a multiple of {self.size}"
        )

    def sum(self, values: list[float], device: str) -> list[float]:
        """Each value summed over the processes, in float64."""
        return self._all_reduce(values, device, dist.ReduceOp.SUM)

    def any(self, flags: list[bool], device: str) -> list[bool]:
        """For each flag whether it is true in any process."""
        raised = self._all_reduce([float(flag) for flag in flags], device, dist.ReduceOp.MAX)
        return [value > 0 for value in raised]

    def _all_reduce(self, values: list[float], device: str, op: Any) -> list[float]:
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(tensor, op=op)
        return cast(list[float], tensor.tolist())

    def broadcast_results(
        self, function: Callable[[Tensor], Tensor], inputs: Iterable[Tensor]
    ) -> list[Tensor]:
        """function(x) for each x, computed by one process and sent to the others.

        All have to call it with the same inputs; `function` keeps shape and dtype.
        """
        results = [
            function(x) if index % self.size == self.rank else torch.empty_like(x)
            for index, x in enumerate(inputs)
        ]
        for index, result in enumerate(results):
            dist.broadcast(result, src=index % self.size)
        return results

    def broadcast_state(self, state: State | None, device: str) -> State | None:
        """The main process's tensors and JSON in every process, on the CPU."""
        message: dict[str, Any] = {}
        if state is not None:
            layout = [
                (name, list(tensor.shape), str(tensor.dtype).removeprefix("torch."))
                for name, tensor in state[0].items()
            ]
            message = {"layout": layout, "metadata": state[1]}
        # JSON, not the pickle that torch.distributed would send an object as.
        text = json.dumps(message).encode()
        length = torch.tensor([len(text)], device=device)
        dist.broadcast(length, src=0)
        if self.is_main_process:
            text_bytes = torch.tensor(list(text), dtype=torch.uint8, device=device)
        else:
            text_bytes = torch.empty(int(length), dtype=torch.uint8, device=device)
        dist.broadcast(text_bytes, src=0)
        message = json.loads(bytes(text_bytes.tolist()))
        if not message:
            return None
        tensors = {}
        for name, shape, dtype in message["layout"]:
            if state is not None:
                tensor = state[0][name].to(device)
            else:
                tensor = torch.empty(shape, dtype=getattr(torch, dtype), device=device)
            dist.broadcast(tensor, src=0)
            tensors[name] = tensor.cpu()
        return tensors, message["metadata"]


class DistributedTrainer(Trainer):
    """A Trainer of which every process computes a part; all have to make the same calls.

    `new_model` makes an untrained copy of the model, in which FSDP's shards are put together.
    """

    def __init__(
        self, group: ProcessGroup, new_model: Callable[[], GPT], *args: Any, **kwargs: Any
    ) -> None:
        self.group, self.is_main_process = group, group.is_main_process
        self._new_model = new_model
        super().__init__(*args, **kwargs)
        self.micro_steps, self.sequences = group.divide(
            self.config.gradient_accumulation, self.config.batch_size
        )

    # --- one update -------------------------------------------------------------------------------

    def _micro_batch(self, step: int, micro_step: int) -> tuple[Tensor, Tensor]:
        # Gradients are exchanged once an update, after its last backward pass.
        last = micro_step == self.micro_steps[-1]
        if isinstance(self.wrapped_model, DistributedDataParallel):
            self.wrapped_model.require_backward_grad_sync = last
        else:
            cast(Any, self.wrapped_model).set_requires_gradient_sync(last)
        return super()._micro_batch(step, micro_step)

    def _check_finite(self, step: int, loss: float, grad_norm: Tensor) -> StepStats:
        mean = self.group.sum([loss], self.device.name)[0] / self.group.size
        return super()._check_finite(step, mean, full_tensor(grad_norm))

    def _validation_loss_sums(self) -> list[float]:
        # Each process does some of the batches; adding zeros is exact, and the order stays. All
        # processes do equally many, since FSDP communicates in each forward pass.
        sums = [0.0] * len(self.val_batches)
        rounds = math.ceil(len(sums) / self.group.size)
        for index in range(self.group.rank, rounds * self.group.size, self.group.size):
            loss_sum = self._loss_sum(*self.val_batches[index % len(sums)])
            if index < len(sums):
                sums[index] = loss_sum
        return self.group.sum(sums, self.device.name)

    # --- weights and state ------------------------------------------------------------------------

    def _wrap_model(self) -> nn.Module:
        return wrap_model(self.model, self.config.sharding, self.group.size)

    def _muon(self) -> Callable[..., Muon]:
        return partial(DistributedMuon, self.group)

    def full_model(self) -> GPT:
        """The model, of which only the main process may use the result where it is sharded."""
        if not is_sharded(self.parameters[0]):
            return self.model
        weights = self.weights()
        if not self.is_main_process:
            return self.model
        model = self._new_model()
        model.load_state_dict(weights)
        return model.to(self.device.name)

    def _cpu_copies(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        # One at a time, and only in the main process: together they may not fit a GPU.
        copies = {}
        for name, tensor in tensors.items():
            full = full_tensor(tensor.detach())
            if self.is_main_process:
                copies[name] = full.to("cpu", copy=True)
        return copies

    def full_tensor(self, tensor: Tensor) -> Tensor:
        return full_tensor(tensor)

    def shard_like(self, tensor: Tensor, target: Tensor) -> Tensor:
        return shard_like(tensor, target)

    def all_reduce_max(self, tensor: Tensor) -> Tensor:
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor

    def any_process(self, flags: list[bool]) -> list[bool]:
        return self.group.any(flags, self.device.name)

    def broadcast(self, state: State | None) -> State | None:
        return self.group.broadcast_state(state, self.device.name)


class DistributedMuon(Muon):
    """Muon whose iteration is divided among processes.

    What is in a batch does not depend on their number, and so neither do the bits.
    """

    def __init__(self, group: ProcessGroup, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._group = group

    def _apply(
        self, parameters: list[Tensor], updates: list[Tensor], chunks: list[int], lr: float
    ) -> None:
        # Only a full matrix can be orthogonalized; then each process takes its shard of the change.
        updates = [full_tensor(update) for update in updates]
        targets = [
            torch.zeros_like(update) if is_sharded(parameter) else parameter
            for parameter, update in zip(parameters, updates, strict=True)
        ]
        super()._apply(targets, updates, chunks, lr)
        for parameter, target in zip(parameters, targets, strict=True):
            if is_sharded(parameter):
                parameter.add_(shard_like(target, parameter))

    def _orthogonalize(self, stacks: Iterable[Tensor]) -> Iterable[Tensor]:
        return self._group.broadcast_results(newton_schulz, stacks)


def wrap_model(model: GPT, sharding: str, size: int) -> nn.Module:
    """What to call in place of `model`, so that its gradients become the mean of all processes.

    ddp   every process keeps the full model
    fsdp  every process keeps a shard of each weight; blocks are gathered one at a time

    Raises ParamsError where fsdp does not know the model's blocks.
    """
    if sharding == "ddp":
        # Without bucket views there would be a second copy of the gradients.
        return DistributedDataParallel(model, gradient_as_bucket_view=True)
    if not hasattr(model, "blocks"):
        raise ParamsError(
            f"model.source = {model.config.source}: train.sharding = fsdp needs GPT.blocks, the "
            "list of the layers; name it so, or set train.sharding=ddp"
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(next(model.parameters()).device.type, (size,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    return cast(nn.Module, fully_shard(model, mesh=mesh))


def is_sharded(tensor: Tensor) -> TypeGuard["DTensor"]:
    """Whether each process holds a shard of the tensor."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def full_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded; then every process has to call it."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def shard_like(tensor: Tensor, target: Tensor) -> Tensor:
    """A full tensor, sharded as `target` is, if it is."""
    if not is_sharded(target):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    # Each process has all of it, so nothing is sent.
    return distribute_tensor(
        tensor.to(target.device), target.device_mesh, target.placements, src_data_rank=None
    )
