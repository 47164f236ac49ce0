"""What an MLflow run should hold, read from params and from the files that the stages wrote.

Metrics are the JSON files that dvc.yaml lists under a stage's `metrics`, curves its CSV files with
a column `step`, pages its pictures and texts in git. Knows nothing of MLflow, writes nothing.
"""

import csv
import hashlib
import io
import json
import math
import os
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from repro import dvc_internals, repository
from repro.lockfile import Pipeline
from repro.project import Params
from repro.repository import WorkingFolder

Point = tuple[str, int, float]  # name, step, value


def params_of_run(params: Params) -> dict[str, str]:
    """All params as MLflow keeps them; blanks and switches spelled as in params.yaml."""
    return {
        key: (value if isinstance(value, str) else json.dumps(value))[:6000]
        for key, value in params.flat().items()
    }


def key_of(params: Params, experiment: str | None) -> str:
    """The tag by which the stages of one execution find their run."""
    text = json.dumps(params.flat(), sort_keys=True)
    # Quoted: a name may have an apostrophe, which would end the string in MLflow's filters.
    name = urllib.parse.quote(experiment or "workspace")
    return f"{name}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def metrics(pipeline: Pipeline, stage: str) -> dict[str, float]:
    """The numbers in the stage's metrics files: {'evaluate/val/loss': 1.9, ...}."""
    return {
        f"{stage}/{name}": value
        for path in pipeline.outs(stage, "metrics")
        for name, value in _numbers(_json(pipeline.files.read(path)))
    }


def curves(pipeline: Pipeline, stage: str) -> list[Point]:
    """The points of the stage's curves, named as the stage sends them while it runs."""
    points: list[Point] = []
    for path in pipeline.outs(stage):
        text = pipeline.files.read(path) if path.endswith(".csv") else None
        lines = csv.DictReader(io.StringIO((text or b"").decode()))
        if "step" not in (lines.fieldnames or []):  # it stays out of MLflow
            continue
        for line in lines:
            for column, cell in line.items():
                if cell and column not in ("step", "tokens"):
                    name = f"{stage}/{column.removeprefix(f'{stage}_')}"
                    points.append((name, int(line["step"]), float(cell)))
    return points


def pages(pipeline: Pipeline, stage: str) -> dict[str, bytes]:
    """Pictures and texts to show with the run: {'pictures/loss.png': b'...'}."""
    return {
        path.partition("/")[2]: content
        for path in pipeline.outs_in_git(stage)
        if path.endswith((".png", ".md")) and (content := pipeline.files.read(path)) is not None
    }


def samples(pipeline: Pipeline) -> dict[str, list[Any]]:
    """The samples as a table, {'sample': [0, 1], 'text': [...], ...}; {} where there are none.

    They are the lines of JSON in dvc.yaml's artifact of type `samples`.
    """
    path = pipeline.artifact("samples").get("path", "")
    text = (pipeline.files.read(path) or _cached(pipeline, path) or b"").decode() if path else ""
    lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    order = ["sample", "prompt", "text", "stop_reason", "seed"]
    keys = {key for line in lines for key in line}
    ordered = [key for key in order if key in keys] + sorted(keys - set(order))
    return {key: [line.get(key) for line in lines] for key in ordered}


def _cached(pipeline: Pipeline, path: str) -> bytes | None:
    """A file in a folder that a stage wrote, from DVC's cache."""
    folder, _, name = path.rpartition("/")
    md5 = pipeline.out_md5(folder)
    listed = _cache_file(md5) if md5 else None
    files = dvc_internals.files_of_folder(listed) if listed else {}
    return _cache_file(files[name]) if name in files else None


def _cache_file(md5: str) -> bytes | None:
    main, disk = repository.root(), WorkingFolder()
    content = disk.read(str(dvc_internals.cached_file(main / dvc_internals.CACHE, md5)))
    if content is not None:
        return content
    return disk.read(str(dvc_internals.cached_file(_shared_cache(main), md5)))


@cache
def _shared_cache(root: Path) -> Path:
    """The cache that a team may share. DVC is asked (a second): any of four files may name it."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "cache", "dir"], cwd=root, capture_output=True
    )
    return root / dvc_internals.CACHE if done.returncode else Path(os.fsdecode(done.stdout).strip())


def _json(text: bytes | None) -> Any:
    try:
        return json.loads(text or b"{}")
    except ValueError:
        return {}


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}/{key}" if name else str(key))
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield name, value
