"""Somebody else's code in a process of its own: `python -m commands.limited MODULE ARGUMENTS`.

It has limits of memory, time and file size, and an environment without passwords. These hold
mistakes, such as an endless loop. They are no wall: code can read and write what its user can.
"""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE, STDOUT

from gpt.errors import SubmissionError

SECONDS = 24 * 3600
MAX_FILE_BYTES = 2**34
MEMORY_FRACTION = 0.75
# Beginnings of the names that Python and PyTorch are started with.
ENVIRONMENT = (
    *("PATH", "LANG", "LC_", "TZ", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "PYTHON", "VIRTUAL_ENV"),
    *("LD_LIBRARY_PATH", "OMP_", "MKL_", "CUDA_", "MPLCONFIGDIR"),
)


def run_limited(
    module: str, *arguments: str, folder: Path, environment: dict[str, str], seconds: int = SECONDS
) -> str:
    """Runs `python -m module` in `folder`; returns what it printed.

    Raises SubmissionError with its last line where it fails, or takes longer.
    """
    environment = {k: v for k, v in os.environ.items() if k.startswith(ENVIRONMENT)} | environment
    try:
        done = subprocess.run(
            [sys.executable, "-m", "commands.limited", str(seconds), module, *arguments],
            cwd=folder,
            env=environment | {"HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise SubmissionError(f"{module}: took longer than {seconds} s, and was ended") from None
    output = done.stdout.decode(errors="replace")
    if done.returncode:
        last = (output.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise SubmissionError(f"{module} failed when it was run here: {last}")
    return output


def set_limits(seconds: int) -> None:
    """Limits this process and those it starts, as far as the system can."""
    if sys.platform == "win32":  # which has none; the time is limited by who waits for it
        return
    import resource

    memory = int(MEMORY_FRACTION * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limits = {
        resource.RLIMIT_CPU: seconds * (os.cpu_count() or 1),
        resource.RLIMIT_DATA: memory,
        resource.RLIMIT_FSIZE: MAX_FILE_BYTES,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        highest = resource.getrlimit(limit)[1]
        if highest != resource.RLIM_INFINITY:
            value = min(value, highest)
        resource.setrlimit(limit, (value, value))


if __name__ == "__main__":
    set_limits(int(sys.argv[1]))
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
