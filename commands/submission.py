"""A submission to a competition: a poem, and all that it came from.

It is a folder that needs nothing but this code:

    submission.json     author, prompt and settings, all candidates, the chosen one, and hashes
    poem.txt            the chosen candidate
    params.yaml, dvc.lock, metrics/..., data/model/...     as in the repository it was made in
    scratchpad/model.py, or what model.source names        of a model of its own

All of it may have been made up to agree: agreement is consistency and no proof. The proof is to
train again (commands/retraining.py).
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal, NoReturn, Self

from pydantic import Field, ValidationError, model_validator

from commands.lineage import (
    MODEL_FILES,
    check_lineage,
    check_steps,
    corpus_md5,
    own_code,
    stated_scores,
)
from commands.model_run import Decoding, generate_candidates, run_model, run_own_code
from gpt.checkpoint import RunConfig, load_model, read_run_config
from gpt.config import OUR_SOURCE, Config, first_line
from gpt.errors import GptError, SubmissionError
from gpt.files import sha256_of, write_json
from gpt.model_source import count_parameters
from repro.errors import UserError
from repro.repository import WorkingFolder, git
from stages.params import CORPUS, CURVE, EVALUATE_METRICS, MODEL, TRAIN_METRICS, SampleParams

NAME = "submission.json"
POEM = "poem.txt"
# Copied from the repository, and hashed; nothing else of a submission is ever read.
COPIED = (
    *("params.yaml", "dvc.lock"),
    *(path.as_posix() for path in (EVALUATE_METRICS, TRAIN_METRICS, CURVE)),
    *MODEL_FILES,
)
MAX_BYTES = 16 * 2**20
MAX_CANDIDATES = 100
MAX_TOKENS = 100_000  # of all candidates together: an hour for a model of 10 M parameters
# A bfloat16 score moves by 0.004 bits per byte where another device computes it.
SCORE_TOLERANCE = 0.01


class Submission(Config):
    """submission.json."""

    format: Literal[1] = 1
    author: str = Field(min_length=1, max_length=80)
    commit: str | None = Field(pattern=r"^[0-9a-f]{40,64}$")
    decoding: Decoding
    candidates: list[str] = Field(min_length=1, max_length=MAX_CANDIDATES)
    chosen: int = Field(ge=0)
    # Of the validation split, as metrics/evaluate.json has them.
    scores: dict[str, float]
    # By role: model, tokenizer, corpus (DVC's md5 of data/corpus), code, dvc_lock.
    hashes: dict[str, str]
    files: dict[str, str]  # sha256

    @model_validator(mode="after")
    def the_parts_fit(self) -> Self:
        if self.chosen >= len(self.candidates):
            raise ValueError("chosen: the chosen candidate is not among the candidates")
        if len(self.candidates) * self.decoding.max_new_tokens > MAX_TOKENS:
            raise ValueError(f"candidates: more than {MAX_TOKENS} new tokens; submit fewer")
        return self

    @property
    def poem(self) -> str:
        return self.candidates[self.chosen]


@dataclass(frozen=True)
class Verified:
    """A consistent submission, and its score as it was computed here.

    None where data/corpus holds another text than it was trained on. A model's own code computes
    its own score, which is as honest as that code.
    """

    submission: Submission
    bits_per_byte: float | None
    by_own_code: bool = False


# --- submit ---------------------------------------------------------------------------------------


def decoding_of(sample: SampleParams) -> Decoding:
    """The settings in `sample` of params.yaml. Raises SubmissionError beyond the limits."""
    values = sample.model_dump(include=set(Decoding.model_fields))
    if (
        sample.num_samples > MAX_CANDIDATES
        or sample.num_samples * sample.max_new_tokens > MAX_TOKENS
    ):
        raise SubmissionError(
            f"sample.num_samples = {sample.num_samples}: at most {MAX_CANDIDATES} candidates, and "
            f"{MAX_TOKENS} new tokens in all; lower it"
        )
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
    with _named_when_complete(folder) as complete:
        source = own_code(Path())
        trained = load_model(MODEL, source or OUR_SOURCE)
        commit = (git("rev-parse", "HEAD") or b"").decode().strip() or None
        check_lineage(Path(), trained.run_config, commit)
        check_steps(Path(), trained.run_config, count_parameters(trained.model))
        decoding = decoding_of(sample)
        candidates = generate_candidates(trained, decoding, sample.num_samples)
        chosen = choose(candidates)
        if not 0 <= chosen < len(candidates):
            raise SubmissionError(f"candidate {chosen}: there are 0 to {len(candidates) - 1}")
        names = [*COPIED, *([source] if source else [])]
        for path in names:
            (complete / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, complete / path)
        (complete / POEM).write_bytes(candidates[chosen].encode())
        try:
            submission = Submission(
                author=author,
                commit=commit,
                decoding=decoding,
                candidates=candidates,
                chosen=chosen,
                scores=stated_scores(Path()),
                hashes=hashes_by_role(Path(), trained.run_config),
                files={path: sha256_of(complete / path) for path in (*names, POEM)},
            )
        except ValidationError as error:
            raise SubmissionError(first_line(error)) from None
        write_json(complete / NAME, submission.model_dump())
    return submission


@contextmanager
def _named_when_complete(folder: Path) -> Iterator[Path]:
    """A folder that is renamed to `folder` at the end: whatever fails, no half of it stands there.

    Raises SubmissionError where nothing can be written, before anybody chooses a poem.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = tempfile.TemporaryDirectory(dir=folder.parent, prefix=".submission-")
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise SubmissionError(
            f"{folder}: could not be written ({reason}); choose another --out"
        ) from None
    with unfinished as name:
        complete = Path(name) / "complete"
        yield complete
        complete.rename(folder)


def hashes_by_role(folder: Path, config: RunConfig) -> dict[str, str]:
    """The hashes that a reader checks first."""
    return {
        "model": config.weights_sha256,
        "tokenizer": config.tokenizer_sha256,
        "corpus": corpus_md5(folder),
        "code": config.code_sha256,
        "dvc_lock": sha256_of(folder / "dvc.lock"),
    }


# --- verify ---------------------------------------------------------------------------------------


def refuse_to_run(code: Path) -> NoReturn:
    raise SubmissionError(
        f"{code}: the model's own code, which is not run unasked; read it, then add --run-code"
    )


def verify(
    folder: Path,
    here: WorkingFolder | None = None,
    allow_code: Callable[[Path], None] = refuse_to_run,
) -> Verified:
    """Checks that a submission is consistent, generates its poem again, byte for byte, and scores
    its model on the validation text of this repository, `here`.

    `allow_code` raises where a file of a stranger is not to be run. Raises SubmissionError with the
    first reason why it is not what it says.
    """
    with _of_a_stranger(folder):
        submission = read(folder)
        _check_files(folder, submission, *COPIED, POEM)
        if code := own_code(folder):
            _check_files(folder, submission, code)
        config = read_run_config(folder / MODEL / "config.json")
        check_lineage(folder, config, submission.commit)
        _check_statements(folder, submission, config)
        corpus = (here or WorkingFolder()).md5(CORPUS.as_posix())
        text = CORPUS if corpus == submission.hashes["corpus"] else None
        task = submission.decoding, len(submission.candidates), text
        if code:
            allow_code(folder / code)
            result = run_own_code(folder / MODEL, folder / code, *task)
        else:
            result = run_model(load_model(folder / MODEL), *task)
        check_steps(folder, config, result.parameters)
        _check_candidates(folder, submission, result.candidates)
    computed, stated = result.bits_per_byte, submission.scores["bits_per_byte"]
    if computed is not None and not abs(computed - stated) <= SCORE_TOLERANCE:
        raise SubmissionError(
            f"{folder / EVALUATE_METRICS}: says {stated:.4f} bits per byte, and the weights have "
            f"{computed:.4f}"
        )
    return Verified(submission, computed, code is not None)


@contextmanager
def _of_a_stranger(folder: Path) -> Iterator[None]:
    """Whatever is wrong with a stranger's folder is a SubmissionError.

    What the readers advise (dvc repro, delete the cache) is for one's own results, and left out.
    """
    try:
        yield
    except SubmissionError:
        raise
    except (GptError, UserError) as error:
        reason = str(error).partition("; ")[0]
        raise SubmissionError(f"{reason}; ask its author for it again") from None
    except OSError as error:
        raise SubmissionError(f"{error.filename or folder}: {error.strerror}") from None
    except (RecursionError, MemoryError, OverflowError) as error:
        raise SubmissionError(f"{folder}: cannot be read ({type(error).__name__})") from None


def read(folder: Path) -> Submission:
    """submission.json, checked for its form alone."""
    path = folder / NAME
    try:
        if path.exists() and not path.is_file():
            raise SubmissionError(f"{path}: is not a file")
        if path.stat().st_size > MAX_BYTES:
            raise SubmissionError(f"{path}: larger than {MAX_BYTES} bytes, no submission")
        return Submission.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SubmissionError(f"{path}: {error.strerror}; gpt submit writes one") from None
    except ValidationError as error:
        raise SubmissionError(f"{path}: no submission of format 1 ({first_line(error)})") from None


def _check_files(folder: Path, submission: Submission, *names: str) -> None:
    """Checks that every file is there, of the hash stated, and no link to one elsewhere."""
    for name in names:
        path = folder / name
        if not path.is_file():
            raise SubmissionError(f"{path}: not found, so the submission is not complete")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise SubmissionError(f"{path}: is a link out of the submission")
        if not name.endswith(".safetensors") and path.stat().st_size > MAX_BYTES:
            raise SubmissionError(f"{path}: larger than {MAX_BYTES} bytes")
        if sha256_of(path) != submission.files.get(name):
            raise SubmissionError(f"{path}: edited; its sha256 is not that of {NAME}")


def _check_statements(folder: Path, submission: Submission, config: RunConfig) -> None:
    """Checks what submission.json says of the other files."""
    where = folder / NAME
    if submission.hashes != hashes_by_role(folder, config):
        raise SubmissionError(f"{where}: its hashes are not those of its files")
    if submission.scores != stated_scores(folder):
        raise SubmissionError(f"{where}: its scores are not those of {EVALUATE_METRICS}")
    if (folder / POEM).read_bytes() != submission.poem.encode():
        raise SubmissionError(f"{folder / POEM}: is not the candidate that {NAME} says was chosen")


def _check_candidates(folder: Path, submission: Submission, texts: list[str]) -> None:
    """Checks the candidates against `texts`, which the model wrote here."""
    for index, (theirs, ours) in enumerate(zip(submission.candidates, texts, strict=True)):
        if theirs != ours:
            differ = next(i for i, (a, b) in enumerate(zip_longest(theirs, ours)) if a != b)
            raise SubmissionError(
                f"{folder / NAME}: candidate {index} is not what the model writes with these "
                f"settings and this seed; they differ from character {differ} on"
            )
