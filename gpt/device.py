"""Which device computes, in which precision, with how many threads.

These decide bits of a result, so they are resolved once, written into the model's config.json, and
used again when it is scored and sampled. `Device.apply` alone has a side effect.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from pydantic import Field

from gpt.config import Config, ModelConfig, TrainConfig
from gpt.errors import ParamsError, TrainingError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Device(Config):
    """A resolved device. `dtype` is the precision of matmuls; weights are float32."""

    name: str = Field(pattern=r"^(cpu|mps|cuda(:\d+)?)$")
    dtype: str = Field(pattern=r"^(float32|bfloat16)$")
    threads: int = Field(gt=0, le=1024)
    cpu_capability: str
    torch: str

    def apply(self) -> None:
        """Sets PyTorch's threads and matmul precision for this process; a stage calls it."""
        torch.set_num_threads(self.threads)
        if self.name.startswith("cuda"):
            torch.set_float32_matmul_precision("high")

    @property
    def autocast(self) -> AbstractContextManager[None]:
        """The context in which forward passes run."""
        kind = self.name.partition(":")[0]
        return torch.autocast(kind, DTYPES[self.dtype], enabled=self.dtype != "float32")


def choose_device(device: str = "auto", dtype: str = "auto", threads: int = 0) -> Device:
    """Resolves `auto`: cuda, mps or cpu; bfloat16 where CUDA has it, else float32.

    threads = 0 means as many as PyTorch has now. Raises ParamsError for a device that this machine
    or this build of torch does not have.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu"
    elif device.startswith("cuda") and not torch.cuda.is_available():
        raise ParamsError(
            f"train.device = {device}: this torch sees no CUDA device; use auto or cpu"
        )
    elif device == "mps" and not _has_mps():
        raise ParamsError("train.device = mps: this torch sees no Apple GPU; use auto or cpu")
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
def out_of_memory_explained(model: ModelConfig, train: TrainConfig) -> Iterator[None]:
    """Turns running out of memory into a TrainingError that says what to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):  # "illegal memory access" is a bug, not a large batch
            raise
        raise TrainingError(
            f"out of memory with train.batch_size = {train.batch_size}; halve it and double "
            f"train.gradient_accumulation (now {train.gradient_accumulation}) for as many tokens "
            f"per update, or lower model.n_embd (now {model.n_embd})"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or here; PyTorch's CPU allocator has no type for it."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def _has_mps() -> bool:
    return bool(torch.backends.mps.is_available())
