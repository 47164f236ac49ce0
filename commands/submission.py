"""`gpt submit`, `gpt verify`, `gpt leaderboard`: a poem, and all that it came from.

A submission is a folder that needs nothing else but this code:

    submission.json     who, prompt and settings, all candidates, which one was chosen, and hashes
    poem.txt            the one that was chosen
    params.yaml, dvc.lock, metrics/..., data/model/...     as in the repository it was made in

What it cannot show: everything here may have been made up together, so that agreement is
consistency and no proof. The proof is to train again (commands/retraining.py).
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError

from gpt.checkpoint import TrainedModel, load_model
from gpt.config import Config, first_line
from gpt.decoding.canonical import canonical, one_thread
from gpt.errors import SubmissionError
from gpt.evaluation.flops import steps_of
from gpt.files import read_json, sha256_of, write_json
from gpt.generation import Sampling, generate
from gpt.model_source import count_parameters
from repro.params import equal, value_at
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
    parse,
)
from stages.sample import prompt_of

FOLDER = Path("submission")
NAME = "submission.json"
POEM = "poem.txt"
# Copied from the repository, and hashed; nothing else of a submission is ever read.
COPIED = (
    *("params.yaml", "dvc.lock"),
    *(str(path) for path in (EVALUATE_METRICS, TRAIN_METRICS, CURVE)),
    *(str(MODEL / name) for name in ("model.safetensors", "config.json", "tokenizer.json")),
)
# Of what a model and its scores come from; the poem itself is written anew to check it.
STAGES = ("prepare", "tokenize", "train", "evaluate")
MAX_BYTES = 16 * 2**20
# Keys that params.yaml may leave open, and the machine decides.
RESOLVED = ("device", "dtype", "threads", "processes")

Sha256 = str


class Decoding(Config):
    """How the candidates were written. The limits keep a stranger's file from taking hours."""

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
    files: dict[str, Sha256]

    @property
    def poem(self) -> str:
        return self.candidates[self.chosen]


# --- submit ---------------------------------------------------------------------------------------


def write_candidates(trained: TrainedModel, decoding: Decoding, count: int) -> list[str]:
    """The texts 0 to count - 1 of these settings, by canonical decoding."""
    sampling = Sampling(
        max_new_tokens=decoding.max_new_tokens,
        temperature=decoding.temperature,
        top_k=decoding.top_k,
        top_p=decoding.top_p,
        stop=decoding.stop,
    )
    with one_thread():
        written = generate(
            canonical(trained.model),
            trained.tokenizer,
            decoding.prompt,
            sampling,
            seed=decoding.seed,
            indices=range(count),
        )
    return [one.text for one in written]


def decoding_of(asked: SampleParams) -> Decoding:
    """What `sample` in params.yaml asks for. Raises SubmissionError beyond the limits."""
    values = asked.model_dump(include=set(Decoding.model_fields)) | {"prompt": prompt_of(asked)}
    try:
        return Decoding(**values)
    except ValidationError as error:
        raise SubmissionError(f"sample.{first_line(error)}") from None


def submit(
    folder: Path,
    author: str,
    asked: SampleParams,
    choose: Callable[[list[str]], int],
) -> Submission:
    """Writes the submission of the present result to `folder`, which must not be there yet.

    `choose` is given all candidates. Raises SubmissionError where the result does not hold
    together (then no other would accept it), and whatever is wrong with the model.
    """
    if folder.exists():
        raise SubmissionError(f"{folder}: is there already; move it, or name another with --out")
    trained = load_model(MODEL)
    check_lineage(Path(), trained)
    decoding = decoding_of(asked)
    candidates = write_candidates(trained, decoding, asked.num_samples)
    chosen = choose(candidates)
    if not 0 <= chosen < len(candidates):
        raise SubmissionError(f"candidate {chosen}: there are 0 to {len(candidates) - 1}")
    commit = git("rev-parse", "HEAD")
    for name in COPIED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(name, folder / name)
    (folder / POEM).write_bytes(candidates[chosen].encode())
    try:
        made = Submission(
            author=author,
            commit=commit.decode().strip() if commit else None,
            decoding=decoding,
            candidates=candidates,
            chosen=chosen,
            scores=stated_scores(folder),
            hashes=roles(folder, trained),
            files={name: sha256_of(folder / name) for name in (*COPIED, POEM)},
        )
    except ValidationError as error:
        shutil.rmtree(folder)
        raise SubmissionError(first_line(error)) from None
    # Last, so that a folder that has it is whole.
    write_json(folder / NAME, made.model_dump())
    return made


def stated_scores(folder: Path) -> dict[str, float]:
    """The plain numbers of the validation split."""
    try:
        val = read_json(folder / EVALUATE_METRICS)["val"]
        float(val["bits_per_byte"])
        return {name: float(v) for name, v in val.items() if isinstance(v, int | float)}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise SubmissionError(
            f"{folder / EVALUATE_METRICS}: has no val.bits_per_byte; dvc repro"
        ) from None


def roles(folder: Path, trained: TrainedModel) -> dict[str, str]:
    """What a reader looks for first, by name."""
    return {
        "model": trained.run_config.weights_sha256,
        "tokenizer": trained.run_config.tokenizer_sha256,
        "corpus": _corpus_md5(folder),
        "code": trained.run_config.code_sha256,
        "dvc_lock": sha256_of(folder / "dvc.lock"),
    }


# --- verify ---------------------------------------------------------------------------------------


def verify(folder: Path) -> Submission:
    """Checks that a submission holds together and writes its poem again, byte for byte.

    Raises SubmissionError with the first reason why it does not.
    """
    found = read(folder)
    for name in (*COPIED, POEM):
        if not (folder / name).is_file():
            raise SubmissionError(f"{folder / name}: not found, so the submission is not whole")
        if not name.endswith(".safetensors") and (folder / name).stat().st_size > MAX_BYTES:
            raise SubmissionError(f"{folder / name}: larger than {MAX_BYTES} bytes")
        if sha256_of(folder / name) != found.files.get(name):
            raise SubmissionError(f"{folder / name}: edited; its sha256 is not that of {NAME}")
    trained = load_model(folder / MODEL)
    check_lineage(folder, trained)
    if found.hashes != roles(folder, trained):
        raise SubmissionError(f"{folder / NAME}: its hashes are not those of the files beside it")
    if found.scores != stated_scores(folder):
        raise SubmissionError(f"{folder / NAME}: its scores are not those of {EVALUATE_METRICS}")
    if found.chosen >= len(found.candidates):
        raise SubmissionError(f"{folder / NAME}: the chosen candidate is not among the candidates")
    if (folder / POEM).read_bytes() != found.poem.encode():
        raise SubmissionError(f"{folder / POEM}: is not the candidate that {NAME} says was chosen")
    written = write_candidates(trained, found.decoding, len(found.candidates))
    for index, (theirs, ours) in enumerate(zip(found.candidates, written, strict=True)):
        if theirs != ours:
            at = next(
                (i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b),
                min(len(theirs), len(ours)),
            )
            raise SubmissionError(
                f"{folder / NAME}: candidate {index} is not what the model writes with these "
                f"settings and this seed; they part at character {at}"
            )
    return found


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


def check_lineage(folder: Path, trained: TrainedModel) -> None:
    """Whether params.yaml, dvc.lock, model and scores in `folder`, and this code, are of one run.

    Raises SubmissionError with what does not agree.
    """
    lock, files = _lock(folder), WorkingFolder()
    where = folder / "dvc.lock"
    params = params_of(folder)
    values = params.model_dump()
    specs = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
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
            if dep.path in made and made[dep.path] != dep.md5:
                raise SubmissionError(f"{where}: {stage} read another {dep.path} than was made")
            if dep.path.endswith(".py") and files.md5(dep.path) != dep.md5:
                raise SubmissionError(
                    f"{where}: {dep.path} was another version than here; check out the commit it "
                    "was made with, or make it again: dvc repro"
                )
        made |= {out.path: out.md5 for out in entry.outs}
    # Nothing but tokens and code goes into a training: no weights from elsewhere.
    inputs = {dep.path for dep in lock["train"].deps if not dep.path.endswith(".py")}
    if inputs != {str(TOKENS)}:
        raise SubmissionError(f"{where}: train read {', '.join(sorted(inputs))}, not tokens alone")
    for path in (MODEL, EVALUATE_METRICS, TRAIN_METRICS, CURVE):
        if files.md5(str(folder / path)) != made.get(str(path)):
            raise SubmissionError(f"{folder / path}: is not what dvc.lock says was made")
    record, (model, train, _) = trained.run_config, params.resolved()
    if record.pretrained_sha256 or record.train.init_from:
        raise SubmissionError(
            f"{folder / MODEL}/config.json: the training began from {record.train.init_from}, and "
            "pretrained weights take no part; train with train.init_from=''"
        )
    used = {key: getattr(record.train, key) for key in RESOLVED}
    used["steps"] = steps_of(model, train, record.vocab_size, count_parameters(trained.model))
    if (
        record.model != model
        or record.train != train.model_copy(update=used)
        or record.seed != params.seed
    ):
        raise SubmissionError(f"{folder / MODEL}/config.json: was trained with other params")


def params_of(folder: Path) -> Params:
    """params.yaml of a submission."""
    path = folder / "params.yaml"
    return parse(path.read_bytes().decode(errors="replace"), str(path))


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
        found = self.params.get("params.yaml")
        return found.get(key) if isinstance(found, dict) else None


def _lock(folder: Path) -> dict[str, _Stage]:
    """dvc.lock, those of its stages that a submission rests on."""
    path = folder / "dvc.lock"
    try:
        stages = yaml.safe_load(path.read_bytes())["stages"]
        return {stage: _Stage.model_validate(stages[stage]) for stage in STAGES}
    except OSError as error:
        raise SubmissionError(f"{path}: {error.strerror}; run it: dvc repro") from None
    except (yaml.YAMLError, LookupError, TypeError, ValueError, RecursionError):
        raise SubmissionError(
            f"{path}: has not all of {', '.join(STAGES)}; run them: dvc repro"
        ) from None


def _corpus_md5(folder: Path) -> str:
    for out in _lock(folder)["prepare"].outs:
        if out.path == str(CORPUS):
            return out.md5
    raise SubmissionError(f"{folder / 'dvc.lock'}: prepare wrote no {CORPUS}; dvc repro")
