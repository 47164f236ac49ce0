"""What a row of MLflow should hold, read from the files of the pipeline.

Knows dvc.yaml, dvc.lock, params and metrics files, and tells for each stage whether the results
that lie there are the results of the present params, data and code: the question DVC asks itself,
answered without importing it (that would cost a second). Knows nothing of MLflow, writes nothing.
"""

import csv
import hashlib
import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import yaml

from repro import repository as workspace
from stages.params import Params

MODEL = "data/model"
CORPUS = "data/corpus"
SAMPLES = "data/samples/samples.jsonl"

# An input above this many bytes counts as unchanged when its size is: DVC hashes it, we need not.
HASH_AT_MOST = 256 * 2**20

Point = tuple[str, int, float]  # name, step, value


class Files(Protocol):
    """A state of the repository: the working folder, or a commit."""

    def read(self, path: str) -> bytes | None:
        """The bytes of a file; None where there is none."""

    def md5(self, path: str) -> str | None:
        """The hash that DVC gives to a file or folder; None where there is none."""

    def size(self, path: str) -> int | None:
        """The bytes in a file or folder, together."""


class WorkingFolder:
    """The files as they lie there now, relative to the working folder, as stages see them."""

    def __init__(self) -> None:
        self._md5s: dict[str, str | None] = {}

    def read(self, path: str) -> bytes | None:
        try:
            return Path(path).read_bytes()
        except OSError:
            return None

    def md5(self, path: str) -> str | None:
        if path not in self._md5s:
            self._md5s[path] = self._hash(Path(path))
        return self._md5s[path]

    def _hash(self, path: Path) -> str | None:
        if path.is_file():
            return _file_md5(path)
        if path.is_dir():
            return folder_md5((str(f.relative_to(path)), _file_md5(f)) for f in _files_in(path))
        return None

    def size(self, path: str) -> int | None:
        where = Path(path)
        if where.is_file():
            return where.stat().st_size
        return sum(f.stat().st_size for f in _files_in(where)) if where.is_dir() else None


class Commit:
    """The files of a commit; those that only DVC's cache holds come from there."""

    def __init__(self, commit: str) -> None:
        self.commit = commit

    def read(self, path: str) -> bytes | None:
        return git("show", f"{self.commit}:{path}")

    def md5(self, path: str) -> str | None:
        content = self.read(path)
        return None if content is None else hashlib.md5(content, usedforsecurity=False).hexdigest()

    def size(self, path: str) -> int | None:
        content = self.read(path)
        return None if content is None else len(content)


def git(*arguments: str) -> bytes | None:
    """What git prints, or None where it fails or is not there."""
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def _files_in(folder: Path) -> list[Path]:
    # .dvcignore names __pycache__ and nothing else.
    return [f for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts]


def _file_md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def folder_md5(files: Iterable[tuple[str, str]]) -> str:
    """DVC's hash of a folder, of its (path in the folder, md5) pairs."""
    listed = [{"md5": md5, "relpath": Path(path).as_posix()} for path, md5 in files]
    listed.sort(key=lambda one: one["relpath"])
    text = json.dumps(listed, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


class Pipeline:
    """dvc.yaml and dvc.lock over a state of the repository, for one set of params.

    `running` names the stage that this process runs. Its results do not count until it is done
    (`finished`); then they are hashed from the files, since DVC writes dvc.lock only afterwards.
    """

    def __init__(
        self,
        files: Files,
        params: Params,
        *,
        running: str | None = None,
        finished: bool = False,
        trust_inputs: bool = False,
    ) -> None:
        self.files, self.params = files, params
        self._running, self._finished, self._trust_inputs = running, finished, trust_inputs
        self.stages: dict[str, Any] = _yaml(files.read("dvc.yaml")).get("stages") or {}
        self._lock: dict[str, Any] = _yaml(files.read("dvc.lock")).get("stages") or {}
        self._maker = {path: name for name in self.stages for path in self.results(name)}
        self._valid: dict[str, bool] = {}

    def results(self, stage: str) -> list[str]:
        """The paths of everything that the stage writes."""
        spec = self.stages[stage]
        kinds = (spec.get(kind) or [] for kind in ("outs", "metrics", "plots"))
        return [_path(one) for kind in kinds for one in kind]

    def valid(self) -> list[str]:
        """The stages whose results belong to the present params, data and code, in order."""
        return [stage for stage in self.stages if self.is_valid(stage)]

    def is_valid(self, stage: str) -> bool:
        if stage == self._running:
            return self._finished
        if stage not in self._valid:
            self._valid[stage] = self._check(stage)
        return self._valid[stage]

    def _check(self, stage: str) -> bool:
        spec, was = self.stages[stage], self._lock.get(stage)
        if not isinstance(was, dict) or was.get("cmd") != spec["cmd"]:
            return False
        then = (was.get("params") or {}).get("params.yaml") or {}
        values = self.params.model_dump()
        wanted = {key: value_at(values, key) for key in spec.get("params") or []}
        if not same(wanted, {key: then.get(key) for key in wanted}):
            return False
        recorded = {entry["path"]: entry for entry in was.get("deps") or []}
        if set(recorded) != set(self.deps(stage)):
            return False
        return all(self._input_unchanged(entry) for entry in recorded.values()) and all(
            self._unchanged(entry)
            for entry in was.get("outs") or []
            # What is in DVC's cache may be absent here; what git keeps is what gets read.
            if entry["path"].startswith("metrics/")
        )

    def _input_unchanged(self, entry: dict[str, Any]) -> bool:
        path = entry["path"]
        if path in self._maker:
            return self.is_valid(self._maker[path]) and self.result_md5(path) == entry["md5"]
        return self._trust_inputs or self._unchanged(entry)

    def _unchanged(self, entry: dict[str, Any]) -> bool:
        path, size = entry["path"], entry.get("size") or 0
        if self.files.size(path) != size:
            return False
        return size > HASH_AT_MOST or self.files.md5(path) == entry["md5"]

    def result_md5(self, path: str) -> str | None:
        """The hash of what a stage wrote, from dvc.lock, or from the files while that is behind."""
        maker = self._maker[path]
        if maker == self._running:
            return self.files.md5(path) if self._finished else None
        outs = (self._lock.get(maker) or {}).get("outs") or []
        return next((entry["md5"] for entry in outs if entry["path"] == path), None)

    def model_md5(self) -> str | None:
        """The hash of the model where the present one is valid."""
        maker = self._maker.get(MODEL)
        return self.result_md5(MODEL) if maker and self.is_valid(maker) else None

    def corpus_md5(self) -> str | None:
        return self.result_md5(CORPUS) if CORPUS in self._maker else None

    def inputs(self, stage: str) -> str:
        """One hash of what the stage reads besides params: a training resumes only under it."""
        seen: dict[str, Any] = {"cmd": self.stages[stage]["cmd"]}
        for path in self.deps(stage):
            if path in self._maker:
                seen[path] = self.result_md5(path)
            else:
                size = self.files.size(path)
                seen[path] = size if (size or 0) > HASH_AT_MOST else self.files.md5(path)
        return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()[:16]

    def before(self, stage: str) -> set[str]:
        """The stages that `stage` builds on, however far back."""
        makers = {self._maker[path] for path in self.deps(stage) if path in self._maker}
        return makers.union(*(self.before(maker) for maker in makers))

    def deps(self, stage: str) -> list[str]:
        values = self.params.model_dump()

        def fill(match: re.Match[str]) -> str:
            return str(value_at(values, match[1]))

        deps = self.stages[stage].get("deps") or []
        return [re.sub(r"\$\{\s*([\w.]+)\s*\}", fill, _path(dep)) for dep in deps]

    # --- what the results say ---------------------------------------------------------------------

    def metrics(self, stage: str) -> dict[str, float]:
        """The numbers of the stage's metrics files: {'evaluate/val/loss': 1.9, ...}."""
        params = self.params.flat()
        numbers: dict[str, float] = {}
        for path in self.results(stage):
            if path.startswith("metrics/") and path.endswith(".json"):
                for name, value in _numbers(_json(self.files.read(path))):
                    # Sizes that stand there for `dvc exp show` are params of the row already.
                    if params.get(f"model.{name}") != value:
                        numbers[f"{stage}/{name}"] = value
        return numbers

    def curve(self, stage: str) -> list[Point]:
        """The points of the stage's curves, named as the stage sends them while it runs."""
        points: list[Point] = []
        for path in self.results(stage):
            text = self.files.read(path) if path.endswith(".csv") else None
            if text is None:
                continue
            lines = csv.DictReader(io.StringIO(text.decode()))
            # Curves over something else than steps are files of the repository, not of the row.
            for line in lines if "step" in (lines.fieldnames or []) else ():
                for column, cell in line.items():
                    if cell and column not in ("step", "tokens"):
                        name = f"{stage}/{column.removeprefix(f'{stage}_')}"
                        points.append((name, int(line["step"]), float(cell)))
        return points

    def pages(self, stage: str) -> dict[str, bytes]:
        """Pictures and texts to show with the row: {'pictures/loss.png': b'...'}."""
        found: dict[str, bytes] = {}
        for path in self.results(stage):
            if path.startswith("metrics/") and path.endswith((".png", ".md")):
                content = self.files.read(path)
                if content is not None:
                    found[path.removeprefix("metrics/")] = content
        return found

    def samples(self) -> dict[str, list[Any]]:
        """The samples as a table: {'sample': [0, 1], 'text': [...], ...}."""
        text = (self.files.read(SAMPLES) or self._cached(SAMPLES) or b"").decode()
        lines = [json.loads(line) for line in text.splitlines() if line.strip()]
        order = ["sample", "prompt", "text", "stop_reason", "seed"]
        keys = {key for line in lines for key in line}
        ordered = [key for key in order if key in keys] + sorted(keys - set(order))
        return {key: [line.get(key) for line in lines] for key in ordered}

    def _cached(self, path: str) -> bytes | None:
        """A file of a folder that dvc.lock names, from DVC's cache."""
        folder, _, name = path.rpartition("/")
        md5 = self.result_md5(folder) if folder in self._maker else None
        for entry in _json(_cache_file(md5)) if md5 else ():
            if entry["relpath"] == name:
                return _cache_file(entry["md5"])
        return None


def _cache_file(md5: str) -> bytes | None:
    name = f"files/md5/{md5[:2]}/{md5[2:]}"
    try:
        return (workspace.root() / ".dvc/cache" / name).read_bytes()
    except OSError:
        pass
    try:
        return (_cache_elsewhere(workspace.root()) / name).read_bytes()
    except OSError:
        return None


@cache
def _cache_elsewhere(root: Path) -> Path:
    """The cache that a team may share. DVC is asked (a second): any of four files may name it."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "cache", "dir"], cwd=root, capture_output=True, text=True
    )
    return root / ".dvc/cache" if done.returncode else Path(done.stdout.strip())


def params_of_row(params: Params) -> dict[str, str]:
    """All params as MLflow keeps them; blanks and switches spelled as in params.yaml."""
    return {
        key: (value if isinstance(value, str) else json.dumps(value))[:6000]
        for key, value in params.flat().items()
    }


def key_of(params: Params, experiment: str | None) -> str:
    """The tag by which the stages of one execution find their row."""
    text = json.dumps(params.flat(), sort_keys=True)
    return f"{experiment or 'workspace'}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def changes_of(params: Params) -> str:
    """What tells these params from their preset: 'n_layer=2, steps=50', or nothing."""
    return ", ".join(f"{key}={value}" for key, value in params.resolved()[2].items())


# --- small readers --------------------------------------------------------------------------------


def _yaml(text: bytes | None) -> dict[str, Any]:
    try:
        loaded = yaml.load(text or b"", Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except yaml.YAMLError:
        return {}  # a dvc.lock cut short tells nothing; DVC says so itself
    return loaded if isinstance(loaded, dict) else {}


def _json(text: bytes | None) -> Any:
    try:
        return json.loads(text or b"{}")
    except ValueError:
        return {}


def _path(entry: Any) -> str:
    """An entry of outs, metrics or plots is a path, or {path: options}."""
    return str(next(iter(entry)) if isinstance(entry, dict) else entry)


def value_at(values: Any, key: str) -> Any:
    """values['train']['steps'] for 'train.steps'."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def same(one: Any, other: Any) -> bool:
    """Equal as params: 0 is 0.0, and 3e-05, which PyYAML takes for a string, is that number."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, float) and isinstance(other, str):
        try:
            return one == float(other)
        except ValueError:
            return False
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _numbers(value: Any, name: str = "") -> Iterable[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}/{key}" if name else str(key))
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield name, value
