"""An environment that has what `make run` installs, and nothing of the tests'."""

import sys
import tomllib
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pipeline_clone import REPOSITORY


def runtime_requirements() -> list[str]:
    """`dependencies` of pyproject.toml."""
    return _project()["dependencies"]


def all_requirements() -> list[str]:
    """The same with those of every extra."""
    extras = _project()["optional-dependencies"].values()
    lines = runtime_requirements() + [line for extra in extras for line in extra]
    return [line for line in lines if not line.startswith("repro-gpt")]


def _project() -> dict[str, Any]:
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]


def with_dependencies(requirements: list[str]) -> dict[str, Distribution]:
    """{name: what is installed here} of the requirements and of all that they require in turn."""
    distributions: dict[str, Distribution] = {}
    waiting, seen = [Requirement(line) for line in requirements], set()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        installed = distribution(requirement.name)
        distributions[canonicalize_name(requirement.name)] = installed
        for line in installed.requires or []:
            further = Requirement(line)
            extras = [*requirement.extras, ""]
            if not further.marker or any(further.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(further)
    return distributions


def make_runtime_environment(folder: Path, requirements: list[str]) -> Path:
    """Links the requirements' packages into a new environment; returns its Python."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for installed in with_dependencies(requirements).values():
        for name in {file.parts[0] for file in installed.files or []} - {"..", "__pycache__"}:
            link = packages / name
            if not link.exists():  # a namespace, such as google, belongs to several
                link.symlink_to(Path(str(installed.locate_file(name))))
    return folder / "bin" / Path(sys.executable).name
