"""Whether params, dvc.lock, model and scores in a folder, and this code, are of one run.

Every file is read as what a stranger wrote: any fault in it is a SubmissionError.
"""

import json
import math
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from gpt.checkpoint import WEIGHTS, RunConfig
from gpt.config import OUR_SOURCE, first_line
from gpt.errors import ParamsError, SubmissionError
from gpt.evaluation.flops import steps_of
from repro.errors import UserError
from repro.lockfile import Pipeline, read_yaml
from repro.params import equal, parse_yaml, value_at
from repro.repository import WorkingFolder
from stages.params import (
    CORPUS,
    CURVE,
    EVALUATE_METRICS,
    MODEL,
    TRAIN_METRICS,
    Params,
    parse_older,
)

# What a model and its scores come from; the poem itself is generated again to check it.
STAGES = ("prepare", "tokenize", "train", "evaluate")
# A stage's results that a submission holds.
RESULTS = (MODEL, EVALUATE_METRICS, TRAIN_METRICS, CURVE)
MODEL_FILES = tuple(f"{MODEL.as_posix()}/{n}" for n in (WEIGHTS, "config.json", "tokenizer.json"))
# Ours have 6 kB and 20 kB, and reading takes a second for 100 kB.
MAX_YAML_BYTES = 2**18
# Where no code but ours lies.
PACKAGES = ("gpt", "repro", "verse", "stages", "commands", "workshop", "tests", "data", "metrics")
# Keys that params.yaml may leave open, and the machine decides.
RESOLVED = ("device", "dtype", "threads", "processes")


def check_lineage(folder: Path, config: RunConfig, commit: str | None) -> None:
    """Checks that all in `folder` is of one run of this code, without running any of it.

    Raises SubmissionError with what does not agree; `commit` is where its code can be checked out.
    """
    _check_lock(folder, commit)
    params = params_of(folder)
    where = folder / MODEL / "config.json"
    if config.pretrained_sha256 or config.train.init_from:
        raise SubmissionError(
            f"{where}: the training began from {config.train.init_from}, and pretrained weights "
            "take no part; train with train.init_from=''"
        )
    model, train, _ = params.resolved()
    used = {key: getattr(config.train, key) for key in RESOLVED}
    used["steps"] = config.train.steps  # check_steps
    expected = (model, train.model_copy(update=used), params.seed)
    if (config.model, config.train, config.seed) != expected:
        raise SubmissionError(f"{where}: was trained with other params")


def check_steps(folder: Path, config: RunConfig, parameters: int) -> None:
    """Checks the number of updates, which a budget may leave to the size of the model."""
    model, train, _ = params_of(folder).resolved()
    if config.train.steps != steps_of(model, train, config.vocab_size, parameters):
        raise SubmissionError(
            f"{folder / MODEL / 'config.json'}: was trained for another number of steps"
        )


def _check_lock(folder: Path, commit: str | None) -> None:
    """Checks params.yaml, this code and the files in `folder` against dvc.lock."""
    where, lock, files = folder / "dvc.lock", _lock(folder), WorkingFolder()
    # As they were written: an earlier version's have keys that this one does not know.
    values = _mapping(folder / "params.yaml")
    specs = read_yaml(files, "dvc.yaml")["stages"]
    pipeline, code = Pipeline(files, values), own_code(folder)
    checkout = f"check out the commit it was made with ({commit or 'unknown'})"
    made: dict[str, str] = {}
    for stage in STAGES:
        entry = lock[stage]
        if entry.cmd != specs[stage]["cmd"]:
            raise SubmissionError(f"{where}: {stage} was run by another command, {entry.cmd}")
        for key in specs[stage].get("params") or []:
            if not equal(value_at(values, key), entry.param(key)):
                raise SubmissionError(
                    f"{where}: {stage} was run with another `{key}` than params.yaml has"
                )
        # What is not listed is not opened, whatever path a stranger wrote.
        listed = set(pipeline.deps(stage))
        for dep in entry.deps:
            if made.get(dep.path, dep.md5) != dep.md5:
                raise SubmissionError(f"{where}: {stage} read another {dep.path} than was made")
            own = str(folder / dep.path) if dep.path == code else dep.path
            if dep.path in listed and dep.path.endswith(".py") and files.md5(own) != dep.md5:
                raise SubmissionError(
                    f"{where}: {dep.path} was another version than here; {checkout}, or make it "
                    "again: dvc repro"
                )
        if odd := listed.symmetric_difference(dep.path for dep in entry.deps):
            raise SubmissionError(
                f"{where}: {stage} read other files than dvc.yaml lists ({min(odd)}); {checkout}"
            )
        made |= {out.path: out.md5 for out in entry.outs}
    for path in RESULTS:
        if files.md5(str(folder / path)) != made.get(path.as_posix()):
            raise SubmissionError(f"{folder / path}: is not what dvc.lock says was made")


def params_of(folder: Path) -> Params:
    """params.yaml of a submission, which an earlier version may have written."""
    path = folder / "params.yaml"
    _mapping(path)
    try:
        return parse_older(path.read_text(encoding="utf-8"), str(path))
    except ParamsError as error:
        raise SubmissionError(str(error)) from None


def own_code(folder: Path) -> str | None:
    """The path of the model's own code (model.source), the same in a submission as in the
    repository it was made in; None for gpt/model.py.

    Raises SubmissionError for one that could lie elsewhere, or in place of this code.
    """
    source = value_at(_mapping(folder / "params.yaml"), "model.source")
    if source in (None, OUR_SOURCE):
        return None
    path = PurePosixPath(str(source))
    if (
        path.is_absolute()
        or path.suffix != ".py"
        or path.parts[0] in PACKAGES
        or not isinstance(source, str)
        or any(name.startswith(".") for name in path.parts)
        or set(source) & set("\\:")
    ):
        raise SubmissionError(
            f"model.source = {source}: a submission's own code is a .py file in a folder of the "
            "repository that holds none of this code; move it to scratchpad/model.py"
        )
    return source


def stated_scores(folder: Path) -> dict[str, float]:
    """The plain numbers of the validation split, bits_per_byte among them."""
    path = folder / EVALUATE_METRICS
    try:
        val = json.loads(path.read_bytes())["val"].items()
        scores = {name: float(value) for name, value in val if type(value) in (int, float)}
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ):
        scores = {}
    if "bits_per_byte" not in scores or not all(map(math.isfinite, scores.values())):
        raise SubmissionError(f"{path}: has no finite number val.bits_per_byte; dvc repro")
    return scores


def corpus_md5(folder: Path) -> str:
    """DVC's hash of data/corpus, by dvc.lock."""
    outs = {out.path: out.md5 for out in _lock(folder)["prepare"].outs}
    if corpus := outs.get(CORPUS.as_posix()):
        return corpus
    raise SubmissionError(f"{folder / 'dvc.lock'}: prepare wrote no {CORPUS}; dvc repro")


class _Entry(BaseModel):
    path: str
    md5: str


class _Stage(BaseModel):
    cmd: str
    deps: list[_Entry]
    outs: list[_Entry]
    params: dict[str, Any]

    def param(self, key: str) -> Any:
        """A section or a key of params.yaml as the stage had it."""
        params = self.params.get("params.yaml")
        return params.get(key) if isinstance(params, dict) else None


def _lock(folder: Path) -> dict[str, _Stage]:
    """dvc.lock: the stages that a submission rests on."""
    path = folder / "dvc.lock"
    try:
        stages = _mapping(path)["stages"]
        return {stage: _Stage.model_validate(stages[stage]) for stage in STAGES}
    except (LookupError, TypeError):
        raise SubmissionError(
            f"{path}: has not all of {', '.join(STAGES)}; run them: dvc repro"
        ) from None
    except ValidationError as error:
        raise SubmissionError(f"{path}: {first_line(error)}") from None


def _mapping(path: Path) -> dict[str, Any]:
    """The YAML in `path`, without aliases: copies of copies would take years to compare."""
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise SubmissionError(f"{path}: larger than {MAX_YAML_BYTES} bytes")
        text = path.read_bytes().decode()
        mapping = parse_yaml(text, str(path))
    except OSError as error:
        raise SubmissionError(f"{path}: {error.strerror}; run it: dvc repro") from None
    except UnicodeDecodeError as error:
        raise SubmissionError(f"{path}: byte {error.start} is not UTF-8") from None
    except UserError as error:
        raise SubmissionError(str(error)) from None
    if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
        raise SubmissionError(f"{path}: has aliases (*name); write the values out")
    return mapping
