"""The folder and home that a process finds: made usable, or refused in one line.

What DVC does not take is from trials with 3.67 (docs/reliability.md, "Odd folders").
"""

import io
import os
import re
import sys
from pathlib import Path

from repro import repository
from repro.errors import UserError


def set_matplotlib_folder() -> None:
    """Keeps Matplotlib's cache in the repository; every stage and command calls it first."""
    # Not in the home, which may not be writable, and whose matplotlibrc would change our figures.
    os.environ.setdefault("MPLCONFIGDIR", str(repository.scratch() / "matplotlib"))


def print_utf8() -> None:
    """Prints UTF-8 into files and pipes too: what Windows takes there lacks most characters."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def check_folder(root: Path, copied: bool) -> str | None:
    """What DVC cannot do in `root`, in one line; `copied`: this is a run in a copy (--temp, queue).

    Raises UserError where DVC would lose the results of this run.
    """
    path = str(root)
    if re.search("[{}]", path):
        raise UserError(f"{path}: DVC fails in a folder with {{ or }} in its path; rename it")
    if escape := re.search("%[0-9A-Fa-f]{2}", path):
        if copied:
            raise UserError(
                f"{path}: DVC would lose this experiment, since {escape[0]} in a path reads as an "
                "escaped character; rename the folder, or use dvc exp run without --temp or --queue"
            )
        return f"{path}: dvc exp run --temp and --queue lose results here ({escape[0]}); rename it"
    if character := re.search("[?#]", path):
        return f"{path}: dvc exp run --temp and --queue fail here ({character[0]}); rename it"
    if not path.isascii():
        return (
            f"{path}: dvc exp run --temp and --queue fail in a path that is not ASCII; "
            "name a cache whose path is: dvc cache dir --local FOLDER"
        )
    return None


def check_name(experiment: str | None) -> None:
    """Raises UserError for an experiment whose name DVC gives to the working folder."""
    if experiment == "workspace":
        raise UserError(
            "--name workspace: DVC calls the working folder so, and dvc exp apply would not find "
            "the experiment; choose another name"
        )
