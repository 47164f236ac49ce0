"""The code that each stage of dvc.yaml depends on: the closure of its imports, file by file.

    python -m repro.code_deps      writes the lists into dvc.yaml; a test compares them

A whole package as a dep would run a stage again for a typo in a message, and the entry script alone
would miss a changed import. Files that change no result are named in pyproject.toml:
`[tool.code_deps] exempt` for all stages, `[tool.code_deps.stages]` for one (patterns as for
fnmatch). `[tool.code_deps.templates]` are files that a param may replace. Packages' `__init__.py`
hold docstrings and are left out.
"""

import argparse
import ast
import re
import tomllib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

MODULE = re.compile(r"^python -m ([\w.]+)$")


def imported_files(root: Path, file: str) -> set[str]:
    """Files below `root` that `file` imports anywhere, late imports too, as paths from `root`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((root / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    paths = {name.replace(".", "/") + ".py" for name in names}
    return {path for path in paths if (root / path).is_file()}


def closure(root: Path, file: str, exempt: Sequence[str] = ()) -> list[str]:
    """`file` and all it imports, directly or not, sorted, without `exempt` files and theirs."""
    reached: set[str] = set()
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path not in reached and not any(fnmatch(path, pattern) for pattern in exempt):
            reached.add(path)
            waiting += imported_files(root, path)
    return sorted(reached)


def code_deps(root: Path) -> dict[str, list[str]]:
    """The files of each stage in dvc.yaml whose command is `python -m MODULE`."""
    settings = _settings(root)
    stages = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    deps = {}
    for name, stage in stages.items():
        if module := MODULE.match(stage["cmd"]):
            exempt = [*settings.get("exempt", []), *settings.get("stages", {}).get(name, [])]
            deps[name] = closure(root, module[1].replace(".", "/") + ".py", exempt)
    return deps


def _settings(root: Path) -> dict[str, Any]:
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    settings: dict[str, Any] = tomllib.loads(text).get("tool", {}).get("code_deps", {})
    return settings


def write_code_deps(root: Path) -> None:
    """Replaces the .py files in each stage's deps; other deps and all comments stay."""
    templates = _settings(root).get("templates", {})
    lines: list[str] = []
    section = ""
    for line in (root / "dvc.yaml").read_text(encoding="utf-8").split("\n"):
        if match := re.match(r"    (\w+):", line):
            section = match[1]
        dep = line.removeprefix("      - ")
        is_code = dep.endswith(".py") or dep in templates.values()
        if section != "deps" or dep == line or not is_code:
            lines.append(line)
    # Data first, then code: the list goes in behind the last dep that is not code.
    text = "\n".join(lines)
    for name, files in code_deps(root).items():
        block = re.compile(rf"(\n  {name}:\n(?:    .*\n)*?    deps:\n(?:      - .*\n)*)")
        if match := block.search(text):
            listed = "".join(f"      - {templates.get(file, file)}\n" for file in files)
            text = text[: match.end()] + listed + text[match.end() :]
    (root / "dvc.yaml").write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    write_code_deps(Path())
