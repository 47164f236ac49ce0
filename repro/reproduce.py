"""The commands that reproduce a result: the commit, and the params that differ from it."""

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from repro.lockfile import read_yaml
from repro.params import equal
from repro.repository import Commit, Files, git

# Unquoted, Hydra takes these for something else than text.
WORD = re.compile(r"(?!(?:null|true|false|nan|inf)$)[a-z][\w./+-]*", re.ASCII | re.IGNORECASE)


def commands(files: Files, base: str = "HEAD") -> str:
    """A commit, and `dvc exp run` with each override that makes the params of `files` of its own.

    Only params that a stage in dvc.yaml depends on: the others change no result. Without a commit
    there are no experiments, and `dvc repro` has to do.
    """
    commit = (git("rev-parse", "--short=12", base) or b"").decode().strip()
    if not commit:
        return "dvc repro"
    before, now = (_watched(state) for state in (Commit(commit), files))
    overrides = [f"~{key}" for key in before if key not in now]
    for key, value in now.items():
        if key not in before or not equal(value, before[key]):
            overrides.append(f"{'' if key in before else '+'}{key}={_override(value)}")
    words = [f"-S {shlex.quote(override)}" for override in overrides]
    return "\n".join([f"git checkout {commit}", " ".join(["dvc exp run", *words])])


def _watched(files: Files) -> dict[str, Any]:
    """The params that dvc.yaml's stages depend on, as {'data.corpus': 'verse', ...}."""
    stages = read_yaml(files, "dvc.yaml").get("stages") or {}
    keys = {str(key) for stage in stages.values() for key in stage.get("params") or []}
    return {
        name: value
        for name, value in _flat(read_yaml(files, "params.yaml")).items()
        if any(f"{name}.".startswith(f"{key}.") for key in keys)
    }


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = _flat(value, f"{before}{key}.") if isinstance(value, dict) else {}
        flat |= inner or {f"{before}{key}": value}
    return flat


def _override(value: Any) -> str:
    """A value as Hydra, which `dvc exp run -S` parses it with, reads it back."""
    if isinstance(value, list):
        return f"[{','.join(map(_override, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)
    if WORD.fullmatch(value):
        return value
    # OmegaConf fills in ${...}; a backslash is special only before that, or before a quote.
    value = re.sub(r"(\\*)\$\{", lambda m: 2 * m[1] + r"\${", value)
    quoted = re.sub(r'(\\*)("|\Z)', lambda m: 2 * m[1] + ("\\" + m[2] if m[2] else ""), value)
    return f'"{quoted}"'
