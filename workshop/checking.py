"""Runs the checks of a part on what a learner wrote, and turns each failure into a hint in words.

A check is a function that is given the learner's module; it raises `Wrong` with a hint. Checks run
in the order in which they are learned from: the first that fails is the one to look at.
"""

import importlib.util
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from gpt.errors import GptError

Check = Callable[[Any], None]


class Wrong(Exception):
    """What is wrong with the learner's code: first its name, then what was seen and where to look.

    Raised from an exception of the learner's code, it is followed by what that said and its line.
    """


class WorkshopError(GptError):
    """Files of the workshop that are missing, or would be overwritten."""


@dataclass(frozen=True)
class Result:
    """A check by its name, and the hint where it failed; an empty one where it did not."""

    name: str
    hint: str


class Part:
    """The checks of one of the learner's files."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.checks: list[tuple[str, Check]] = []

    def check(self, name: str) -> Callable[[Check], Check]:
        """Adds a check; `name` says what holds when it passes."""

        def add(function: Check) -> Check:
            self.checks.append((name, function))
            return function

        return add

    def run(self, folder: Path) -> list[Result]:
        """All checks on the file in `folder`. Raises WorkshopError where there is none."""
        path = folder / self.file
        if not path.is_file():
            raise WorkshopError(f"{path}: not found; make it: gpt workshop start")
        try:
            module = load(path)
        except Exception as error:
            return [Result("the file can be imported", said_by(error, path))]
        return [Result(name, _hint(check, module, path)) for name, check in self.checks]


def load(path: Path) -> ModuleType:
    """The learner's file as a module, read afresh."""
    spec = importlib.util.spec_from_file_location(f"scratchpad_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    # Python would take an edited file of the same size and second for the one it compiled before.
    code = compile(path.read_text(encoding="utf-8"), str(path), "exec")
    exec(code, module.__dict__)  # noqa: S102 (the learner's own code, which this is for)
    return module


def _hint(check: Check, module: ModuleType, path: Path) -> str:
    try:
        check(module)
    except Wrong as wrong:
        cause = wrong.__cause__
        return f"{wrong}. {said_by(cause, path)}" if isinstance(cause, Exception) else str(wrong)
    except Exception as error:
        return said_by(error, path)
    return ""


def said_by(error: Exception, path: Path) -> str:
    """An exception of the learner's code in one line, with the line that raised it."""
    lines = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    where = f"{path.name}, line {lines[-1].lineno}" if lines else path.name
    if isinstance(error, NotImplementedError):
        name = f" `{lines[-1].name}`" if lines else ""
        return f"not written yet:{name} ({where})"
    if isinstance(error, SyntaxError):
        where = f"{path.name}, line {error.lineno}"
    if not lines and "NoneType" in str(error):
        return f"one of your functions gives None: is its `return` missing? ({where})"
    said = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {said} ({where})"
