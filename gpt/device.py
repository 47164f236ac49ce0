"""Which device computes, in which precision, with how many threads.

These decide bits of a result, so they are resolved once, written into the model's config.json, and
used again when it is scored and sampled. `Device.apply` alone has a side effect.

    python -m gpt.device  what the owner of a GPU sends in a report (gpt/device_report.py)
"""

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any

import torch
from pydantic import Field

from gpt.config import Config, ModelConfig, TrainConfig
from gpt.errors import ParamsError, TrainingError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# What PyTorch says of an operator without a kernel for Apple's GPU: a warning where
# PYTORCH_ENABLE_MPS_FALLBACK lets the CPU compute it, else an error.
NO_KERNEL = r"The operator '(\S+)' is not currently (supported|implemented)"
OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    *("MPS backend out of memory", "Invalid buffer size"),
)


class Device(Config):
    """A resolved device. `dtype` is the precision of matmuls; weights are float32."""

    name: str = Field(pattern=r"^(cpu|mps|cuda(:\d+)?)$")
    dtype: str = Field(pattern=r"^(float32|bfloat16)$")
    threads: int = Field(gt=0, le=1024)
    cpu_capability: str
    torch: str

    def apply(self) -> None:
        """Sets PyTorch's threads and matmul precision for this process; a stage calls it.

        On Apple's GPU each operator that the CPU computes instead is then named in one line, once.
        """
        torch.set_num_threads(self.threads)
        if self.name.startswith("cuda"):
            torch.set_float32_matmul_precision("high")
        if self.name == "mps":
            _name_fallbacks()

    @property
    def autocast(self) -> AbstractContextManager[None]:
        """The context in which forward passes run."""
        kind = self.name.partition(":")[0]
        return torch.autocast(kind, DTYPES[self.dtype], enabled=self.dtype != "float32")


def choose_device(
    device: str = "auto", dtype: str = "auto", threads: int = 0, processes: int = 1
) -> Device:
    """Resolves `auto`: cuda, mps (of one process) or cpu; bfloat16 where CUDA has it, else float32.

    threads = 0 means as many as PyTorch has now. Raises ParamsError for a device that this machine
    or this build of torch does not have, or that `processes` cannot share.
    """
    if device == "auto":
        mps = _has_mps() and processes == 1
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    elif device.startswith("cuda") and not torch.cuda.is_available():
        raise ParamsError(
            f"train.device = {device}: this torch sees no CUDA device; use auto or cpu"
        )
    elif device == "mps" and not _has_mps():
        raise ParamsError("train.device = mps: this torch sees no Apple GPU; use auto or cpu")
    elif device == "mps" and processes > 1:
        raise ParamsError(
            f"train.device = mps: {processes} processes cannot train on Apple's GPU; use auto or "
            "cpu, or train.processes=1"
        )
    if dtype == "auto":
        native = device.startswith("cuda") and torch.cuda.is_bf16_supported(
            including_emulation=False
        )
        dtype = "bfloat16" if native else "float32"
    return Device(
        name=device,
        dtype=dtype,
        threads=threads or torch.get_num_threads(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        torch=torch.__version__,
    )


@contextmanager
def device_errors_explained(model: ModelConfig, train: TrainConfig) -> Iterator[None]:
    """Turns running out of memory into a TrainingError that says what to lower, and an operator
    that the device lacks into one that names it."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if match := re.match(NO_KERNEL, str(error)):
            raise TrainingError(
                f"train.device = mps: PyTorch has no {match[1]} for Apple's GPU; set the "
                "environment variable PYTORCH_ENABLE_MPS_FALLBACK=1, or use train.device=cpu"
            ) from error
        if not is_out_of_memory(error):  # "illegal memory access" is a bug, not a large batch
            raise
        halve = (
            f"halve it and double train.gradient_accumulation (now {train.gradient_accumulation}) "
            "for as many tokens per update, or "
        ) * (train.batch_size > 1)
        raise TrainingError(
            f"out of memory with train.batch_size = {train.batch_size}; {halve}lower "
            f"model.block_size (now {model.block_size}) or model.n_embd (now {model.n_embd})"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or here; of three allocators CUDA's alone has a type."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or any(text in str(error) for text in OUT_OF_MEMORY)


def _has_mps() -> bool:
    return bool(torch.backends.mps.is_available())


def _name_fallbacks() -> None:
    torch.set_warn_always(True)  # or PyTorch names only the first operator
    warnings.filterwarnings("once", NO_KERNEL)
    show = warnings.showwarning

    def show_in_one_line(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        if match := re.match(NO_KERNEL, str(message)):
            line = f"warning: {match[1]} is slow: Apple's GPU has no kernel, so the CPU computes it"
            print(line, file=sys.stderr)
        else:
            show(message, *args, **kwargs)

    warnings.showwarning = show_in_one_line


if __name__ == "__main__":
    # By its name: the report trains, and the trainer imports this file.
    import_module("gpt.device_report").main()
