"""Runs a stage in several processes: PyTorch's elastic launcher, and what each process is told.

    python -m stages.train                   one process, or as many as params.yaml says
    torchrun --nnodes 2 ... -m stages.train  one of those that torchrun started, on several hosts

The first process is the stage as it always is: it writes, tracks and prints. The others compute.
A process that dies ends the others, and all restart from the last saved state, RESTARTS times.
"""

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from repro import run_stage
from repro.errors import Interrupted, UserError
from repro.project import AnyParams, Project
from repro.tracking.run import Run

RESTARTS = 3
# A restart does not help after these: a user's fault, a stop after saving, an interrupt.
FINAL = (2, 75, 130)
# Exit code of a process whose peer ended, or did not answer in time (EX_PROTOCOL).
PEER_LOST = 76
# gloo's errors are plain RuntimeErrors.
LOST = re.compile(r"gloo|Connection (closed|reset|refused)|Socket Timeout|NCCL", re.IGNORECASE)


class PeerLostError(Exception):
    """Another process of the group ended, or did not answer in time."""


def main(
    project: Project[AnyParams],
    name: str,
    body: Callable[[AnyParams, Run], None],
    processes: Callable[[AnyParams], int],
) -> None:
    """Runs `body` as the stage `name`: here, or in `processes(params)` processes that all do it."""
    if _started_by_torchrun():
        _run_as_one_of_several(project, name, body)
        return
    run_stage.read_arguments(name)
    try:
        count = processes(project.load())
    except project.faults:
        count = 1  # the stage itself reports what is wrong with params.yaml
    if count > 1:
        sys.exit(_launch(name, count))
    run_stage.main(project, name, body)


@contextmanager
def process_group(device: str, timeout_seconds: int) -> Iterator[tuple[int, int]]:
    """This process's rank and the number of processes; (0, 1) where there is one.

    `device` is auto, cpu or cuda; each CUDA process is given the GPU of its local rank. Raises
    UserError where a host has fewer GPUs than processes, PeerLostError where another process ends.
    """
    if not _started_by_torchrun():
        yield 0, 1
        return
    backend = "gloo"
    if device in ("auto", "cuda") and torch.cuda.is_available():
        local_size, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if local_size > gpus:
            raise UserError(
                f"{local_size} processes on a machine of {gpus} GPUs; start {gpus} here"
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "nccl"
    # torchrun keeps one store for all restarts, and gloo's addresses in it name no attempt.
    shared_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if shared_store and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
        print(
            "warning: restarted processes may try to reach the previous ones, and fail; start "
            "torchrun with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 (docs/scale.md)"
        )
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds))
    try:
        yield dist.get_rank(), dist.get_world_size()
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or LOST.search(str(error))):
            raise
        raise PeerLostError(
            f"another process ended, or did not answer for {timeout_seconds} s; the last saved "
            "state is kept, and the same command resumes from it"
        ) from error
    finally:
        dist.destroy_process_group()


def _started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _run_as_one_of_several(
    project: Project[AnyParams], name: str, body: Callable[[AnyParams, Run], None]
) -> None:
    rank = int(os.environ["RANK"])
    try:
        if rank == 0:
            run_stage.main(project, name, body)
        else:
            _run_silently(project, name, body)
    except PeerLostError as error:
        print(f"{name}, process {rank}: {error}", file=sys.stderr)
        # An orderly exit would wait, perhaps for ever, for an answer of the lost process.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(PEER_LOST)


def _run_silently(
    project: Project[AnyParams], name: str, body: Callable[[AnyParams, Run], None]
) -> None:
    """A process other than the first: the same work, and nothing of it shown or tracked."""
    try:
        with (
            Path(os.devnull).open("w", encoding="utf-8", newline="\n") as nowhere,
            redirect_stdout(nowhere),
        ):
            body(project.load(), Run())
    except Interrupted:
        sys.exit(75)
    except project.faults as error:
        # On its own host the first process reports it; another host may lack what that one has.
        if int(os.environ["LOCAL_RANK"]) == 0:
            print(f"{name}, process {os.environ['RANK']}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _launch(name: str, processes: int) -> int:
    """Starts this module in several processes on this machine; the exit code for all of them."""
    # Imported here: one process has no use for it.
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What it logs of a process that ended is printed below in a line.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // processes)))
    module = sys.modules["__main__"].__spec__
    assert module is not None, "stages are run as python -m"
    for attempt in range(1 + RESTARTS):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=f"{name}-{os.getpid()}-{attempt}",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
        )
        try:
            elastic_launch(config, sys.executable)("-m", module.name)
            return 0
        except SignalException:
            return 75
        except ChildFailedError as error:
            codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        final = [code for code in FINAL if code in codes.values()]
        if final:
            return final[0]
        rank, cause = _first_to_end(codes)
        then = "all restart from the last saved state" if attempt < RESTARTS else "given up"
        print(f"{name}: process {rank} ended by {cause}; {then}", file=sys.stderr)
    return 1


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _first_to_end(codes: Mapping[int, int]) -> tuple[int, str]:
    """From the exit codes by rank: which process ended first, and what ended it."""
    # One that lost its peer ended later, though its end may have been noticed earlier.
    rank = min(codes, key=lambda rank: (codes[rank] == PEER_LOST, rank))
    return rank, f"signal {-codes[rank]}" if codes[rank] < 0 else f"code {codes[rank]}"
