"""Which device computes, in which precision, with how many threads.

These decide bits of a result, so they are resolved once, written into the model's config.json, and
used again when it is scored and sampled.
"""

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from gpt.errors import ParamsError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Device:
    """A device as it is used. `dtype` is the precision of matrix products; weights are float32."""

    name: str
    dtype: str
    threads: int
    cpu_capability: str
    torch: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def autocast(self) -> AbstractContextManager[None]:
        """The context in which forward passes run."""
        kind = self.name.split(":")[0]
        return torch.autocast(kind, DTYPES[self.dtype], enabled=self.dtype != "float32")


def choose_device(device: str = "auto", dtype: str = "auto", threads: int = 0) -> Device:
    """Resolves `auto` (cuda, mps, cpu; bfloat16 where CUDA has it, else float32), sets threads.

    Raises ParamsError for a device that this machine or this build of torch does not have.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu"
    elif device.startswith("cuda") and not torch.cuda.is_available():
        raise ParamsError(f"train.device {device}: this torch sees no CUDA device; use auto or cpu")
    elif device == "mps" and not _has_mps():
        raise ParamsError("train.device mps: this torch sees no Apple GPU; use auto or cpu")
    if dtype == "auto":
        native = device.startswith("cuda") and torch.cuda.is_bf16_supported(
            including_emulation=False
        )
        dtype = "bfloat16" if native else "float32"
    if threads:
        torch.set_num_threads(threads)
    if device.startswith("cuda"):
        torch.set_float32_matmul_precision("high")
    return Device(
        name=device,
        dtype=dtype,
        threads=torch.get_num_threads(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        torch=torch.__version__,
    )


def _has_mps() -> bool:
    return bool(torch.backends.mps.is_available())
