"""Several processes for one training: PyTorch's elastic launcher, and what each of them is told.

    python -m stages.train                   one process, or the train.processes of params.yaml
    torchrun --nnodes 2 ... -m stages.train  one of those that torchrun started, on several hosts

The first process is the stage as it always is: it writes, tracks and talks. The others compute.
A process that dies ends the others, and all begin again from the last saved state, RESTARTS times.
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

from gpt.config import TrainConfig
from gpt.corpus.parallel import cores
from gpt.distributed import Group
from gpt.errors import GptError, Interrupted, ParamsError
from repro import run_stage as stage
from repro.tracking.run import Row
from stages.params import Params, load

RESTARTS = 3
# Nobody is helped by a restart after these: a fault of the user's, a saved stop, an interrupt.
FINAL = (2, 75, 130)
# Of a process that another one left alone, or did not answer in time (EX_PROTOCOL).
ALONE = 76
# gloo's errors are plain RuntimeErrors.
LOST = re.compile(r"gloo|Connection (closed|reset|refused)|Socket Timeout|NCCL", re.IGNORECASE)


def main(name: str, body: Callable[[Params, Row], None]) -> None:
    """Runs `body` as the stage `name`: here, or in several processes that all do it."""
    if _started_by_torchrun():
        try:
            if int(os.environ["RANK"]) == 0:
                stage.main(name, _with_others(name, body))
            else:
                _beside(name, _with_others(name, body))
        except SystemExit as end:
            if end.code != ALONE:
                raise
            # An orderly exit would wait, perhaps for ever, for a word from whoever is gone.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ALONE)
        return
    processes = _asked()
    if processes > 1:
        sys.exit(_together(name, processes))
    stage.main(name, body)


@contextmanager
def group(config: TrainConfig, timeout_seconds: int) -> Iterator[Group]:
    """This process's group; of several, each CUDA process is given the GPU of its number.

    Raises ParamsError where a host has fewer GPUs than processes.
    """
    if not _started_by_torchrun():
        yield Group()
        return
    backend = "gloo"
    if config.device in ("auto", "cuda") and torch.cuda.is_available():
        here, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if here > gpus:
            raise ParamsError(f"{here} processes on a machine of {gpus} GPUs; start {gpus} here")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "nccl"
    if _may_meet_old_addresses():
        print(
            "warning: processes that begin again may look for those before them, and fail; start "
            "torchrun with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 (docs/scale.md)"
        )
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds))
    try:
        yield Group(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def _started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _may_meet_old_addresses() -> bool:
    """Whether processes that begin again use the store of those before them.

    torchrun keeps one for all restarts, and gloo's addresses in it have no number of the attempt.
    """
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return shared and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"


def _asked() -> int:
    """train.processes; 1 where params.yaml is at fault, which the stage says itself."""
    try:
        return load().resolved()[1].processes
    except GptError:
        return 1


def _with_others(name: str, body: Callable[[Params, Row], None]) -> Callable[[Params, Row], None]:
    """`body`, in which the loss of another process is one line and a code of its own."""

    def wrapped(params: Params, row: Row) -> None:
        try:
            body(params, row)
        except RuntimeError as error:
            if not (isinstance(error, dist.DistError) or LOST.search(str(error))):
                raise
            print(
                f"{name}, process {os.environ['RANK']}: another process is gone, or did not answer "
                f"for {params.runtime.timeout_seconds} s (runtime.timeout_seconds); what was saved "
                "is kept, and the same command goes on from there",
                file=sys.stderr,
            )
            sys.exit(ALONE)

    return wrapped


def _beside(name: str, body: Callable[[Params, Row], None]) -> None:
    """A process other than the first: the same work, and nothing of it shown or tracked."""
    try:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            body(load(), Row())
    except Interrupted:
        sys.exit(75)
    except GptError as error:
        # On its own host the first process says it; another host may lack what that one has.
        if int(os.environ["LOCAL_RANK"]) == 0:
            print(f"{name}, process {os.environ['RANK']}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _together(name: str, processes: int) -> int:
    """Starts the stage in so many processes on this machine; the exit code for all of them."""
    # Imported here: one process has no use for it.
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What it logs of a process that ended is said below in a line.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // processes)))
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
            elastic_launch(config, sys.executable)("-m", f"stages.{name}")
            return 0
        except SignalException:
            return 75
        except ChildFailedError as error:
            codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        final = [code for code in FINAL if code in codes.values()]
        if final:
            return final[0]
        rank, how = _first_to_end(codes)
        left = RESTARTS - attempt
        then = "all begin again from the last saved state" if left else "given up"
        print(f"{name}: process {rank} ended by {how}; {then}", file=sys.stderr)
    return 1


def _first_to_end(codes: Mapping[int, int]) -> tuple[int, str]:
    """Of the exit codes by rank: whose end was the cause, and what ended it.

    Whoever was left alone ended later, though perhaps before anybody looked.
    """
    rank = min(codes, key=lambda rank: (codes[rank] == ALONE, rank))
    code = codes[rank]
    return rank, f"signal {-code}" if code < 0 else f"code {code}"
