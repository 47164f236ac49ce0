"""A submission to a competition: a poem, and all that it came from.

It is a folder that needs nothing but this code:

    submission.json     author, prompt and settings, all candidates, the chosen one, and hashes
    poem.txt            the chosen candidate
    params.yaml, dvc.lock, metrics/..., data/model/...     as in the repository it was made in

All of it may have been made up to agree: agreement is consistency and no proof. The proof is to
train again (commands/retraining.py).
"""

import shutil
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from gpt.checkpoint import WEIGHTS, TrainedModel, load_model
from gpt.config import Config, first_line
from gpt.decoding.canonical import canonical, one_thread
from gpt.errors import SubmissionError
from gpt.evaluation.flops import steps_of
from gpt.files import read_json, sha256_of, write_json
from gpt.generation import Sampling, generate
from gpt.model_source import count_parameters
from repro.errors import UserError
from repro.lockfile import read_yaml
from repro.params import equal, parse_yaml, value_at
from repro.repository import WorkingFolder, git
from stages.params import (
    CORPUS,
    CURVE,
    EVALUATE_METRICS,
    MODEL,
    TOKENS,
    TRAIN_METRICS,
    Params,
    SampleParams,
    parse_older,
)

NAME = "submission.json"
POEM = "poem.txt"
# Copied from the repository, and hashed; nothing else of a submission is ever read.
COPIED = (
    *("params.yaml", "dvc.lock"),
    *(path.as_posix() for path in (EVALUATE_METRICS, TRAIN_METRICS, CURVE)),
    *(f"{MODEL.as_posix()}/{name}" for name in (WEIGHTS, "config.json", "tokenizer.json")),
)
# What a model and its scores come from; the poem itself is generated again to check it.
STAGES = ("prepare", "tokenize", "train", "evaluate")
MAX_BYTES = 16 * 2**20
# Keys that params.yaml may leave open, and the machine decides.
RESOLVED = ("device", "dtype", "threads", "processes")


class Decoding(Config):
    """How the candidates were generated. The limits keep a stranger's file from taking hours."""

    prompt: str = Field(max_length=100_000)
    max_new_tokens: int = Field(ge=0, le=10_000)
    temperature: float = Field(ge=0.0)
    top_k: int = Field(ge=0)
    top_p: float = Field(gt=0.0, le=1.0)
    stop: str | None = Field(max_length=1000)
    seed: int = Field(ge=0, lt=2**63)


class Submission(Config):
    """submission.json."""

    format: Literal[1] = 1
    author: str = Field(min_length=1, max_length=80)
    commit: str | None = Field(pattern=r"^[0-9a-f]{40,64}$")
    decoding: Decoding
    candidates: list[str] = Field(min_length=1, max_length=100)
    chosen: int = Field(ge=0)
    # Of the validation split, as metrics/evaluate.json has them.
    scores: dict[str, float]
    # By role: model, tokenizer, corpus (DVC's md5 of data/corpus), code, dvc_lock.
    hashes: dict[str, str]
    files: dict[str, str]  # sha256

    @property
    def poem(self) -> str:
        return self.candidates[self.chosen]


# --- submit ---------------------------------------------------------------------------------------


def generate_candidates(trained: TrainedModel, decoding: Decoding, count: int) -> list[str]:
    """The texts 0 to count - 1 of these settings, by canonical decoding."""
    settings = decoding.model_dump(exclude={"prompt", "seed"})
    with one_thread():
        samples = generate(
            canonical(trained.model),
            trained.tokenizer,
            decoding.prompt,
            Sampling(**settings),
            seed=decoding.seed,
            indices=range(count),
        )
    return [sample.text for sample in samples]


def decoding_of(sample: SampleParams) -> Decoding:
    """The settings in `sample` of params.yaml. Raises SubmissionError beyond the limits."""
    values = sample.model_dump(include=set(Decoding.model_fields))
    try:
        return Decoding(**values | {"prompt": sample.read_prompt()})
    except ValidationError as error:
        raise SubmissionError(f"sample.{first_line(error)}") from None


def submit(
    folder: Path, author: str, sample: SampleParams, choose: Callable[[list[str]], int]
) -> Submission:
    """Writes the submission of the present result to `folder`, which must not exist yet.

    `choose` returns the index of one of the candidates. Raises SubmissionError where the result is
    not consistent (then nobody would accept it), and whatever is wrong with the model.
    """
    if folder.exists():
        raise SubmissionError(f"{folder}: is there already; move it, or name another with --out")
    trained = load_model(MODEL)
    commit = (git("rev-parse", "HEAD") or b"").decode().strip() or None
    check_lineage(Path(), trained, commit)
    decoding = decoding_of(sample)
    candidates = generate_candidates(trained, decoding, sample.num_samples)
    chosen = choose(candidates)
    if not 0 <= chosen < len(candidates):
        raise SubmissionError(f"candidate {chosen}: there are 0 to {len(candidates) - 1}")
    for name in COPIED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(name, folder / name)
    (folder / POEM).write_bytes(candidates[chosen].encode())
    try:
        submission = Submission(
            author=author,
            commit=commit,
            decoding=decoding,
            candidates=candidates,
            chosen=chosen,
            scores=stated_scores(folder),
            hashes=hashes_by_role(folder, trained),
            files={name: sha256_of(folder / name) for name in (*COPIED, POEM)},
        )
    except ValidationError as error:
        shutil.rmtree(folder)
        raise SubmissionError(first_line(error)) from None
    # Last, so that a folder that has it is complete.
    write_json(folder / NAME, submission.model_dump())
    return submission


def stated_scores(folder: Path) -> dict[str, float]:
    """The plain numbers of the validation split."""
    path = folder / EVALUATE_METRICS
    try:
        val = read_json(path)["val"]
        float(val["bits_per_byte"])
        return {name: float(v) for name, v in val.items() if isinstance(v, int | float)}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise SubmissionError(f"{path}: has no val.bits_per_byte; dvc repro") from None


def hashes_by_role(folder: Path, trained: TrainedModel) -> dict[str, str]:
    """The hashes that a reader checks first."""
    outs = {out.path: out.md5 for out in _lock(folder)["prepare"].outs}
    corpus = outs.get(CORPUS.as_posix())
    if not corpus:
        raise SubmissionError(f"{folder / 'dvc.lock'}: prepare wrote no {CORPUS}; dvc repro")
    return {
        "model": trained.run_config.weights_sha256,
        "tokenizer": trained.run_config.tokenizer_sha256,
        "corpus": corpus,
        "code": trained.run_config.code_sha256,
        "dvc_lock": sha256_of(folder / "dvc.lock"),
    }


# --- verify ---------------------------------------------------------------------------------------


def verify(folder: Path) -> Submission:
    """Checks that a submission is consistent and generates its poem again, byte for byte.

    Raises SubmissionError with the first reason why it is not.
    """
    submission = read(folder)
    for name in (*COPIED, POEM):
        path = folder / name
        if not path.is_file():
            raise SubmissionError(f"{path}: not found, so the submission is not complete")
        if not name.endswith(".safetensors") and path.stat().st_size > MAX_BYTES:
            raise SubmissionError(f"{path}: larger than {MAX_BYTES} bytes")
        if sha256_of(path) != submission.files.get(name):
            raise SubmissionError(f"{path}: edited; its sha256 is not that of {NAME}")
    trained = load_model(folder / MODEL)
    check_lineage(folder, trained, submission.commit)
    where = folder / NAME
    if submission.hashes != hashes_by_role(folder, trained):
        raise SubmissionError(f"{where}: its hashes are not those of its files")
    if submission.scores != stated_scores(folder):
        raise SubmissionError(f"{where}: its scores are not those of {EVALUATE_METRICS}")
    if submission.chosen >= len(submission.candidates):
        raise SubmissionError(f"{where}: the chosen candidate is not among the candidates")
    if (folder / POEM).read_bytes() != submission.poem.encode():
        raise SubmissionError(f"{folder / POEM}: is not the candidate that {NAME} says was chosen")
    texts = generate_candidates(trained, submission.decoding, len(submission.candidates))
    for index, (theirs, ours) in enumerate(zip(submission.candidates, texts, strict=True)):
        if theirs != ours:
            differ = next(i for i, (a, b) in enumerate(zip_longest(theirs, ours)) if a != b)
            raise SubmissionError(
                f"{where}: candidate {index} is not what the model writes with these settings and "
                f"this seed; they differ from character {differ} on"
            )
    return submission


def read(folder: Path) -> Submission:
    """submission.json, checked for its form alone."""
    path = folder / NAME
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SubmissionError(f"{path}: larger than {MAX_BYTES} bytes, no submission")
        return Submission.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SubmissionError(f"{path}: {error.strerror}; gpt submit writes one") from None
    except ValidationError as error:
        raise SubmissionError(f"{path}: no submission of format 1 ({first_line(error)})") from None


def check_lineage(folder: Path, trained: TrainedModel, commit: str | None) -> None:
    """Checks that params, dvc.lock, model and scores in `folder`, and this code, are of one run.

    Raises SubmissionError with what does not agree; `commit` is where its code can be checked out.
    """
    _check_lock(folder, commit)
    config, params = trained.run_config, params_of(folder)
    where = folder / MODEL / "config.json"
    if config.pretrained_sha256 or config.train.init_from:
        raise SubmissionError(
            f"{where}: the training began from {config.train.init_from}, and pretrained weights "
            "take no part; train with train.init_from=''"
        )
    model, train, _ = params.resolved()
    used = {key: getattr(config.train, key) for key in RESOLVED}
    used["steps"] = steps_of(model, train, config.vocab_size, count_parameters(trained.model))
    expected = (model, train.model_copy(update=used), params.seed)
    if (config.model, config.train, config.seed) != expected:
        raise SubmissionError(f"{where}: was trained with other params")


def _check_lock(folder: Path, commit: str | None) -> None:
    """Checks params.yaml, this code and the files in `folder` against dvc.lock."""
    where, lock, files = folder / "dvc.lock", _lock(folder), WorkingFolder()
    # As they were written: an earlier version's have keys that this one does not know.
    values = parse_yaml(_params_text(folder), str(folder / "params.yaml"))
    specs = read_yaml(files, "dvc.yaml")["stages"]
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
        for dep in entry.deps:
            if made.get(dep.path, dep.md5) != dep.md5:
                raise SubmissionError(f"{where}: {stage} read another {dep.path} than was made")
            if dep.path.endswith(".py") and files.md5(dep.path) != dep.md5:
                raise SubmissionError(
                    f"{where}: {dep.path} was another version than here; check out the commit it "
                    f"was made with ({commit or 'unknown'}), or make it again: dvc repro"
                )
        made |= {out.path: out.md5 for out in entry.outs}
    # Nothing but tokens and code goes into a training: no weights from elsewhere.
    inputs = {dep.path for dep in lock["train"].deps if not dep.path.endswith(".py")}
    if inputs != {TOKENS.as_posix()}:
        raise SubmissionError(f"{where}: train read {', '.join(sorted(inputs))}, not tokens alone")
    for path in (MODEL, EVALUATE_METRICS, TRAIN_METRICS, CURVE):
        if files.md5(str(folder / path)) != made.get(path.as_posix()):
            raise SubmissionError(f"{folder / path}: is not what dvc.lock says was made")


def params_of(folder: Path) -> Params:
    """params.yaml of a submission, which an earlier version may have written."""
    return parse_older(_params_text(folder), str(folder / "params.yaml"))


def _params_text(folder: Path) -> str:
    return (folder / "params.yaml").read_bytes().decode(errors="replace")


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
        stages = parse_yaml(path.read_bytes(), str(path))["stages"]
        return {stage: _Stage.model_validate(stages[stage]) for stage in STAGES}
    except OSError as error:
        raise SubmissionError(f"{path}: {error.strerror}; run it: dvc repro") from None
    except (UserError, LookupError, TypeError, ValueError):
        raise SubmissionError(
            f"{path}: has not all of {', '.join(STAGES)}; run them: dvc repro"
        ) from None
