"""The Makefile in a folder of a test's own, whatever make and git found around it."""

import os
import shutil
import subprocess
from pathlib import Path

from conftest import REPOSITORY, missing


def copy_makefile(folder: Path) -> None:
    """Copies the Makefile and the files that its environment is made from."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, folder)


def run_make(
    folder: Path, *words: str, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs make in `folder`, with PATH and the variables given alone; skips where it is missing."""
    make = shutil.which("make")
    if make is None or os.name == "nt":
        missing("make is not installed (apt install make)")
    return subprocess.run(
        [make, *words],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            # A temporary folder may lie in somebody's git repository.
            "GIT_CEILING_DIRECTORIES": str(folder.parent),
        }
        | environment,
        capture_output=True,
        text=True,
        check=check,
    )
