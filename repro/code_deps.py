"""The code that each stage of dvc.yaml depends on: the closure of its imports, file by file.

    python -m repro.code_deps      writes the lists into dvc.yaml; a test compares them

A whole package as a dep would run a stage again for a typo in a message, and the entry script alone
would miss a changed import. Files that change no result are named in pyproject.toml:
`[tool.code_deps] exempt` for all stages, `[tool.code_deps.stages]` for one; patterns as for
fnmatch.
Packages' `__init__.py` hold docstrings and are left out.
"""

import ast
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

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
    """`file` and all it imports directly or not, sorted; `exempt` files and their imports are
    not."""
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
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    settings = settings.get("tool", {}).get("code_deps", {})
    of_stage: Mapping[str, list[str]] = settings.get("stages", {})
    stages = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    deps = {}
    for name, stage in stages.items():
        if module := MODULE.match(stage["cmd"]):
            exempt = [*settings.get("exempt", []), *of_stage.get(name, [])]
            deps[name] = closure(root, module[1].replace(".", "/") + ".py", exempt)
    return deps


def write_code_deps(root: Path, shown_as: Callable[[str], str] = lambda path: path) -> None:
    """Replaces the .py files in each stage's deps; other deps and all comments stay."""
    deps = {name: [shown_as(path) for path in files] for name, files in code_deps(root).items()}
    known = {path for files in deps.values() for path in files}
    lines: list[str] = []
    section = ""
    for line in (root / "dvc.yaml").read_text(encoding="utf-8").split("\n"):
        if match := re.match(r"    (\w+):", line):
            section = match[1]
        dep = line.removeprefix("      - ")
        if section == "deps" and dep != line and (dep.endswith(".py") or dep in known):
            continue
        lines.append(line)
    # Data first, then code: the list goes in behind the last dep that is not code.
    text = "\n".join(lines)
    for name, files in deps.items():
        block = re.compile(rf"(\n  {name}:\n(?:    .*\n)*?    deps:\n(?:      - .*\n)*)")
        if match := block.search(text):
            listed = "".join(f"      - {file}\n" for file in files)
            text = text[: match.end()] + listed + text[match.end() :]
    (root / "dvc.yaml").write_text(text, encoding="utf-8")


def _as_in_dvc_yaml(path: str) -> str:
    # Another model file may be named in params.yaml; then that one is the dep.
    return "${model.source}" if path == "gpt/model.py" else path


if __name__ == "__main__":
    write_code_deps(Path(), _as_in_dvc_yaml)
