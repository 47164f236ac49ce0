"""Where commands run: in the repository's root, a user's fault in one line and exit code 2."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from gpt.errors import DataError, GptError
from repro import repository
from repro.errors import UserError
from repro.run_stage import disk_fault, premature_exit
from repro.surroundings import set_matplotlib_folder

ModelFolder = Annotated[
    Path | None,
    typer.Option(
        "--model", help="A folder as the train stage writes it; else data/model.", resolve_path=True
    ),
]


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
    except SystemExit as stop:
        fail(premature_exit(stop))


@contextmanager
def complete_metrics() -> Iterator[None]:
    """What is read of metrics/ in it may be of an earlier version, or edited by hand.

    Raises DataError where a figure is missing, or is none.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        which = f" ({error})" if isinstance(error, KeyError) else ""
        raise DataError(
            f"metrics: a figure is missing or is no number{which}; make them again: dvc repro"
        ) from None


def fail(message: str) -> NoReturn:
    print(f"gpt: {message}", file=sys.stderr)
    raise typer.Exit(2)
