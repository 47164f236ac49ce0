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


@contextmanager
def at_root() -> Iterator[None]:
    """Changes to the root; paths from the command line are resolved before (`resolve_path`)."""
    try:
        os.chdir(repository.root())
        yield
    except (GptError, UserError) as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    print(f"gpt: {message}", file=sys.stderr)
    raise typer.Exit(2)
