"""Runs the checks of one of the learner's files and turns each failure into a hint.

A check is a function that gets the learner's module; it raises `Wrong` with a hint. Checks run in
the order of the course, so the first failure is the one to fix first.
"""

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from gpt.errors import GptError

Check = Callable[[Any], None]


class Wrong(Exception):
    """The mistake in the learner's code: first its name, then what was observed and what to change.

    If it has a cause in the learner's code, that exception and its line are added to the hint.
    """


class WorkshopError(GptError):
    """Files of the workshop that are missing, or would be overwritten."""


@dataclass(frozen=True)
class Result:
    """A check by its name; `hint` is empty if it passed."""

    name: str
    hint: str


class Checklist:
    """The checks of one of the learner's files."""

    def __init__(self) -> None:
        self.checks: list[tuple[str, Check]] = []

    def check(self, name: str) -> Callable[[Check], Check]:
        """Adds a check; `name` says what holds if it passes."""

        def add(function: Check) -> Check:
            self.checks.append((name, function))
            return function

        return add

    def run(self, path: Path) -> list[Result]:
        """Runs all checks on the file. Raises WorkshopError if it does not exist."""
        if not path.is_file():
            raise WorkshopError(f"{path}: not found; make it: gpt workshop start")
        try:
            module = load(path)
        except (Exception, SystemExit) as error:
            return [Result("the file can be imported", describe(error, path))]
        return [Result(name, _hint(check, module, path)) for name, check in self.checks]


@contextmanager
def hint_on(hint: str, *errors: type[Exception]) -> Iterator[None]:
    """Turns `errors` of the learner's code into `Wrong(hint)`, but for code not written yet."""
    try:
        yield
    except NotImplementedError:
        raise
    except errors as error:
        raise Wrong(hint) from error


def load(path: Path) -> ModuleType:
    """Executes the learner's file as a module, never a cached one."""
    spec = importlib.util.spec_from_file_location(f"scratchpad_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    # Python's import would reuse the bytecode of an edit of the same size in the same second.
    code = compile(path.read_text(encoding="utf-8"), str(path), "exec")
    exec(code, module.__dict__)  # noqa: S102 (the learner's own code, which this is for)
    return module


def _hint(check: Check, module: ModuleType, path: Path) -> str:
    try:
        check(module)
    except Wrong as wrong:
        cause = wrong.__cause__
        return f"{wrong}. {describe(cause, path)}" if isinstance(cause, Exception) else str(wrong)
    except (Exception, SystemExit) as error:
        return describe(error, path)
    return ""


def describe(error: BaseException, path: Path) -> str:
    """Describes an exception of the learner's code in one line, with the line that raised it."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    where = f"{path.name}, line {frames[-1].lineno}" if frames else path.name
    if isinstance(error, NotImplementedError):
        name = f" `{frames[-1].name}`" if frames else ""
        return f"not written yet:{name} ({where})"
    if isinstance(error, SyntaxError):
        where = f"{path.name}, line {error.lineno}"
    if not frames and "NoneType" in str(error):
        return f"one of your functions returns None: is its `return` missing? ({where})"
    if isinstance(error, SystemExit):
        return f"it ends the program, with which the check would end too; remove that ({where})"
    message = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {message} ({where})"
