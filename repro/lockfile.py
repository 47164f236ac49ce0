"""dvc.yaml and dvc.lock: which results belong to the present params, data and code.

The question that DVC asks itself before it runs a stage, answered without importing it (that would
cost a second). Both are read as YAML 1.2, as DVC reads them. Knows nothing of MLflow, writes
nothing.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from repro.errors import UserError
from repro.params import equal, parse_yaml, value_at
from repro.repository import Commit, Files, WorkingFolder

# An input above this many bytes counts as unchanged when its size is: DVC hashes it, we need not.
HASH_AT_MOST = 256 * 2**20


def read_yaml(files: Files, file: str) -> dict[str, Any]:
    """dvc.yaml or dvc.lock; {} where it is missing or cut short, which DVC reports itself."""
    try:
        return _parse(files.read(file) or b"")
    except UserError:
        return {}


# Each Pipeline of a stage reads the same two files, at 60 ms for a lock. No caller edits them.
_parse = lru_cache(maxsize=4)(parse_yaml)


def fill_templates(text: str, values: Mapping[str, Any]) -> str:
    """`${data.path}` in dvc.yaml, filled in from params."""
    return re.sub(r"\$\{\s*([\w.]+)\s*\}", lambda key: str(value_at(values, key[1])), text)


def code_files(stage: str, values: Mapping[str, Any]) -> list[Path]:
    """The source files that dvc.yaml lists as what the results of `stage` depend on."""
    pipeline = Pipeline(WorkingFolder(), values)
    return [Path(dep) for dep in pipeline.deps(stage) if dep.endswith(".py")]


class Pipeline:
    """dvc.yaml and dvc.lock over a state of the repository, for the values of its params.yaml.

    `running`: a stage whose results do not count, since this process is making them.
    `finished`: one that this process has made; they are hashed from the files, since DVC writes
    dvc.lock only afterwards.
    """

    def __init__(
        self,
        files: Files,
        values: Mapping[str, Any],
        *,
        running: str | None = None,
        finished: str | None = None,
    ) -> None:
        self.files, self.values = files, values
        self._running, self._finished = running, finished
        spec = read_yaml(files, "dvc.yaml")
        self.stages: dict[str, Any] = spec.get("stages") or {}
        self._artifacts: dict[str, Any] = spec.get("artifacts") or {}
        self._lock: dict[str, Any] = read_yaml(files, "dvc.lock").get("stages") or {}
        self._maker = {path: name for name in self.stages for path in self.outs(name)}
        self._valid: dict[str, bool] = {}

    # --- dvc.yaml ---------------------------------------------------------------------------------

    def outs(self, stage: str, *kinds: str) -> list[str]:
        """The paths that the stage writes, of the kinds outs, metrics and plots or of some."""
        return [path for path, _ in self._outs(stage, *kinds)]

    def outs_in_git(self, stage: str) -> list[str]:
        """Those that git keeps, with `cache: false`; the others are in DVC's cache."""
        return [path for path, options in self._outs(stage) if options.get("cache") is False]

    def _outs(self, stage: str, *kinds: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for kind in kinds or ("outs", "metrics", "plots"):
            for entry in self.stages[stage].get(kind) or []:
                yield from entry.items() if isinstance(entry, dict) else [(str(entry), {})]

    def deps(self, stage: str) -> list[str]:
        """The paths that the stage reads, code included, templates filled in."""
        deps = self.stages[stage].get("deps") or []
        return [fill_templates(str(dep), self.values) for dep in deps]

    def maker(self, path: str) -> str:
        """The stage that writes `path`, or the folder that holds it; "" where none does."""
        folders = [path, *(str(folder) for folder in PurePosixPath(path).parents)]
        return next((self._maker[name] for name in folders if name in self._maker), "")

    def artifact(self, kind: str) -> dict[str, str]:
        """dvc.yaml's first artifact of that type, as {'path': ..., 'desc': ...}; {} without one."""
        for entry in self._artifacts.values():
            if entry.get("type") == kind and self.maker(entry["path"]):
                return {key: fill_templates(str(text), self.values) for key, text in entry.items()}
        return {}

    def upstream(self, stage: str) -> set[str]:
        """The stages that `stage` builds on, however far back."""
        makers = {self._maker[path] for path in self.deps(stage) if path in self._maker}
        return makers.union(*(self.upstream(maker) for maker in makers))

    # --- dvc.lock ---------------------------------------------------------------------------------

    def valid(self) -> list[str]:
        """The stages whose results belong to the present params, data and code, in order."""
        return [stage for stage in self.stages if self.is_valid(stage)]

    def is_valid(self, stage: str) -> bool:
        if stage in (self._running, self._finished):
            return stage == self._finished
        if stage not in self._valid:
            self._valid[stage] = self._check(stage)
        return self._valid[stage]

    def _check(self, stage: str) -> bool:
        spec, locked = self.stages[stage], self._lock.get(stage)
        if not isinstance(locked, dict) or locked.get("cmd") != spec["cmd"]:
            return False
        then = (locked.get("params") or {}).get("params.yaml") or {}
        for key in spec.get("params") or []:
            if not equal(value_at(self.values, key), then.get(key)):
                return False
        deps = locked.get("deps") or []
        if {entry["path"] for entry in deps} != set(self.deps(stage)):
            return False
        # What is in DVC's cache may be absent here; what git keeps is what gets read.
        in_git = set(self.outs_in_git(stage))
        outs = [entry for entry in locked.get("outs") or [] if entry["path"] in in_git]
        return all(map(self._input_unchanged, deps)) and all(map(self._unchanged, outs))

    def _input_unchanged(self, entry: dict[str, Any]) -> bool:
        path = entry["path"]
        if path in self._maker:
            return self.is_valid(self._maker[path]) and self.out_md5(path) == entry["md5"]
        # An experiment is committed with the inputs it was made from.
        return isinstance(self.files, Commit) or self._unchanged(entry)

    def _unchanged(self, entry: dict[str, Any]) -> bool:
        path, size = entry["path"], entry.get("size") or 0
        if self.files.size(path) != size:
            return False
        return size > HASH_AT_MOST or self.files.md5(path) == entry["md5"]

    def out_md5(self, path: str) -> str | None:
        """The hash of what a stage wrote, from dvc.lock, or from the files while that is behind."""
        maker = self._maker.get(path, "")
        if maker in (self._running, self._finished):
            return self.files.md5(path) if maker == self._finished else None
        outs = (self._lock.get(maker) or {}).get("outs") or []
        return next((entry["md5"] for entry in outs if entry["path"] == path), None)

    def model_md5(self) -> str | None:
        """The hash of the model where the present one is valid."""
        path = self.artifact("model").get("path")
        return self.out_md5(path) if path and self.is_valid(self.maker(path)) else None

    def inputs(self, stage: str) -> str:
        """One hash of what the stage reads besides params: a training resumes only under it."""
        inputs: dict[str, Any] = {"cmd": self.stages[stage]["cmd"]}
        for path in self.deps(stage):
            if path in self._maker:
                inputs[path] = self.out_md5(path)
            else:
                size = self.files.size(path)
                inputs[path] = size if (size or 0) > HASH_AT_MOST else self.files.md5(path)
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
