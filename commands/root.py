"""Where commands run: in the repository's root, a user's fault in one line and exit code 2."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from gpt.errors import GptError
from repro import repository
from repro.errors import UserError
from repro.run_stage import disk_fault
from repro.surroundings import set_matplotlib_folder


@contextmanager
def at_root() -> Iterator[None]:
    """Changes to the root; paths from the command line are resolved before (`resolve_path`)."""
    try:
        os.chdir(repository.root())
        set_matplotlib_folder()
        yield
    except (GptError, UserError) as error:
        fail(str(error))
    except OSError as error:
        fail(disk_fault(error))


def fail(message: str) -> NoReturn:
    print(f"gpt: {message}", file=sys.stderr)
    raise typer.Exit(2)
