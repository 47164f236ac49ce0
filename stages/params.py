"""The schema of params.yaml, the paths of what the stages write, and what repro is told of both.

The whole file is checked by whichever stage runs first, so that a typo in `sample` is not found
after an hour of training; a stage is then handed only the sections that dvc.yaml lists for it.
How the file is read (YAML 1.2, errors of one line) is repro/params.py's.
"""

import difflib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, create_model, model_validator

from gpt.config import Config, ModelConfig, TrainConfig, first_line
from gpt.errors import DataError, GptError, ParamsError, TokenizerError, one_line
from gpt.files import flattened
from gpt.presets import resolve
from repro.errors import UserError
from repro.params import FILE, parse_yaml, read_text, validate
from repro.project import Project
from repro.repository import git

# What the stages write, relative to the working folder, as dvc.yaml declares it.
CORPUS = Path("data/corpus")
TOKENS = Path("data/tokens")
TOKENIZER = TOKENS / "tokenizer.json"
MODEL = Path("data/model")
SAMPLES = Path("data/samples/samples.jsonl")
RULES = Path("data/samples/rules.csv")
SAMPLES_PAGE = Path("metrics/samples.md")
PREPARE_METRICS = Path("metrics/prepare.json")
TOKENIZE_METRICS = Path("metrics/tokenize.json")
TRAIN_METRICS = Path("metrics/train.json")
EVALUATE_METRICS = Path("metrics/evaluate.json")
BASELINES = "ladder"  # their key in it, since version 0.1
SAMPLE_METRICS = Path("metrics/sample.json")
CURVE = Path("metrics/curves/train.csv")
POSITIONS = Path("metrics/curves/positions.csv")
CALIBRATION = Path("metrics/curves/calibration.csv")
LOSS_PICTURE = Path("metrics/pictures/loss.png")

# The environment variable that names a folder or URL tried before the public address of a download.
MIRROR = "GPT_MIRROR"

CORPORA = ("verse", "shakespeare", "names", "tinystories", "openwebtext", "fineweb_edu", "own")


class DataParams(Config):
    corpus: str
    weights: list[float]
    path: str = Field(min_length=1)
    files: str = Field(min_length=1)
    column: str = Field(min_length=1)
    encoding: str
    shards: int = Field(gt=0)
    sha256: str | None = Field(pattern=r"^[0-9a-f]{64}$")
    seed: int = Field(ge=0, lt=2**63)
    val_fraction: float = Field(gt=0.0, lt=1.0)
    test_fraction: float = Field(ge=0.0, lt=1.0)
    drop_duplicates: bool
    max_bytes: int = Field(ge=0)
    verse_bytes: int = Field(gt=0)

    @property
    def corpora(self) -> list[str]:
        """The names in `corpus`, which may be several: shakespeare+names."""
        return self.corpus.split("+")

    @model_validator(mode="after")
    def corpora_are_known_and_weighed(self) -> Self:
        for name in self.corpora:
            if name not in CORPORA:
                near = difflib.get_close_matches(name, CORPORA, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]}?" if near else f"; choose {', '.join(CORPORA)}"
                raise ValueError(f"data.corpus = {name!r} is not known{hint}")
        if len(set(self.corpora)) < len(self.corpora):
            raise ValueError(f"data.corpus = {self.corpus} names one twice; give it more weight")
        if self.weights and (len(self.weights) != len(self.corpora) or not min(self.weights) > 0):
            raise ValueError(
                f"data.weights = {self.weights} is not one number above 0 for each of "
                f"{', '.join(self.corpora)}; write [] for their sizes"
            )
        return self

    @model_validator(mode="after")
    def encoding_is_known(self) -> Self:
        try:
            "text".encode(self.encoding)
        except LookupError:
            raise ValueError(
                f"data.encoding = {self.encoding!r} is not known; use utf-8, utf-16, cp1252, "
                "latin-1 or another that Python lists as standard encodings"
            ) from None
        return self

    @model_validator(mode="after")
    def something_is_left_to_train_on(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1.0:
            raise ValueError(
                f"data.val_fraction + data.test_fraction = {self.val_fraction} + "
                f"{self.test_fraction} leave nothing to train on; lower one"
            )
        return self


class TokenizerParams(Config):
    kind: Literal["char", "byte", "bpe", "gpt2"]
    # 256 bytes, and perhaps the id between documents.
    vocab_size: int = Field(ge=257, le=2**18)
    pattern: Literal["gpt2", "gpt4"]


def _overrides(config: type[Config]) -> type[BaseModel]:
    """`config` with every key optional: blank means that the preset decides."""
    fields: dict[str, Any] = {}
    for name, field in config.model_fields.items():
        fields[name] = (field.rebuild_annotation() | None, ...)
    return create_model(f"{config.__name__}Overrides", __base__=Config, **fields)


ModelOverrides = _overrides(ModelConfig)
TrainOverrides = _overrides(TrainConfig)


class EvaluateParams(Config):
    batch_tokens: int = Field(gt=0)


class SampleParams(Config):
    prompt: str
    prompt_file: str = Field(min_length=1)
    num_samples: int = Field(gt=0)
    max_new_tokens: int = Field(ge=0)
    temperature: float = Field(ge=0.0)
    top_k: int = Field(ge=0)
    top_p: float = Field(gt=0.0, le=1.0)
    stop: str | None
    seed: int = Field(ge=0, lt=2**63)

    def read_prompt(self) -> str:
        """The prompt, or the prompt file's text, without a byte order mark and a last line break.

        A prompt that is a line break stays one. Raises DataError.
        """
        if self.prompt:
            return re.sub(r"(?s)(?<=.)(\r\n|\n|\r)\Z", "", self.prompt.removeprefix("\ufeff"))
        path = Path(self.prompt_file)
        try:
            return path.read_text(encoding="utf-8-sig").removesuffix("\n")
        except OSError as error:
            raise DataError(
                f"{path}: {error.strerror}; set sample.prompt_file to a text file"
            ) from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: byte {error.start} is not UTF-8; save it as UTF-8") from None


class RuntimeParams(Config):
    tracking: bool
    sample_every: int = Field(ge=0)
    sample_tokens: int = Field(ge=0)
    checkpoint_every: int = Field(ge=0)
    checkpoint_seconds: int = Field(ge=0)
    keep_scratch: bool
    timeout_seconds: int = Field(gt=0)


class Params(Config):
    """All of params.yaml."""

    data: DataParams
    tokenizer: TokenizerParams
    preset: str
    # The examples are shown to whoever writes -S model=small.
    model: ModelOverrides = Field(examples=["preset=small"])  # type: ignore[valid-type]
    train: TrainOverrides = Field(examples=["preset=small"])  # type: ignore[valid-type]
    seed: int = Field(ge=0, lt=2**63)
    evaluate: EvaluateParams
    sample: SampleParams
    runtime: RuntimeParams

    @model_validator(mode="after")
    def pretrained_weights_are_not_an_output(self) -> Self:
        init_from = Path(self.train.init_from or "")  # type: ignore[attr-defined]
        if MODEL in (init_from, init_from.parent):
            raise ValueError(
                f"train.init_from = {init_from}: DVC removes {MODEL} before a training; copy it "
                f"and name the copy: dvc checkout {MODEL} && cp -r {MODEL} scratchpad/pretrained"
            )
        return self

    @property
    def model_source(self) -> str:
        """The file that the model is built from; evaluate and sample are handed it too."""
        return self.resolved()[0].source

    @property
    def tracking(self) -> bool:
        return self.runtime.tracking

    @property
    def changes(self) -> str:
        """What was overridden of the preset: 'n_layer=2, steps=50', or nothing."""
        return ", ".join(f"{key}={value}" for key, value in self.resolved()[2].items())

    @property
    def title(self) -> str:
        return f"{self.preset} {self.changes}".strip()

    def resolved(self) -> tuple[ModelConfig, TrainConfig, dict[str, Any]]:
        """Model and training with the preset filled in, and what was overridden."""
        overrides = self.model_dump(include={"model", "train"}, exclude_none=True)
        return resolve(self.preset, overrides["model"], overrides["train"])

    def check_prompt(self, encode: Callable[[str], object]) -> None:
        """Raises TokenizerError for a prompt or a stop string that `encode` has no ids for.

        The prompt file is no input of a training: where it is missing, `sample` says so.
        """
        texts = {"stop": self.sample.stop or ""}
        if self.sample.prompt or Path(self.sample.prompt_file).exists():
            texts["prompt"] = self.sample.read_prompt()
        for name, text in texts.items():
            try:
                encode(text)
            except TokenizerError as error:
                hint = '; a line break is "\\n" in double quotes' if "\\n" in text else ""
                raise TokenizerError(f"sample.{name} = {text!r}: {error}{hint}") from None

    def flat(self) -> dict[str, Any]:
        """{'data.corpus': 'verse', ..., 'model.n_layer': 4, ...}, the preset filled in."""
        model, train, _ = self.resolved()
        sections = self.model_dump()
        sections["model"], sections["train"] = model.model_dump(), train.model_dump()
        del sections["runtime"]
        return flattened(sections)


def load(file: str = FILE) -> Params:
    """Reads and checks `file`, relative to the working folder. Raises ParamsError."""
    with _params_errors(file):
        return parse(read_text(file), file)


def parse(text: str, file: str = FILE) -> Params:
    """Checks the text of a params file; `file` is named in errors. Raises ParamsError."""
    with _params_errors(file):
        return _resolvable(validate(parse_yaml(text, file), Params, file))


def parse_older(text: str, file: str = FILE) -> Params:
    """Like `parse`, for results that an earlier version of this project may have made.

    A key that is no longer known is dropped, and named once on stderr; one that was not known yet
    has the value that is committed today. Raises ParamsError.
    """
    with _params_errors(file):
        older = parse_yaml(text, file)
        today = parse_yaml(git("show", f"HEAD:{FILE}") or read_text(FILE))
    unknown = [key for key in older if key not in Params.model_fields]
    values = {key: older.get(key, today.get(key)) for key in Params.model_fields}
    for section, field in Params.model_fields.items():
        known, older_section = getattr(field.annotation, "model_fields", {}), values[section]
        if known and isinstance(older_section, dict):
            unknown += [f"{section}.{key}" for key in older_section if key not in known]
            # Blank: the preset decides.
            defaults = {} if section in ("model", "train") else today.get(section, {})
            values[section] = {key: older_section.get(key, defaults.get(key)) for key in known}
    if unknown:
        _tell_unknown(", ".join(unknown))
    with _params_errors(file):
        return _resolvable(validate(values, Params, file))


@cache
def _tell_unknown(keys: str) -> None:
    line = one_line(f"{keys}: in params of an earlier version, and left out")
    print(line, file=sys.stderr)


def _resolvable(params: Params) -> Params:
    params.resolved()
    return params


@contextmanager
def _params_errors(file: str) -> Iterator[None]:
    """Turns what repro and pydantic raise of a params file into ParamsError."""
    try:
        yield
    except UserError as error:
        raise ParamsError(str(error)) from None
    except ValidationError as error:
        raise ParamsError(f"{file}: {first_line(error)}") from None


Section = TypeVar("Section", bound=Config)


def check(section: type[Section], name: str, values: dict[str, Any]) -> Section:
    """A section made of `values`, as for options on a command line. Raises ParamsError."""
    try:
        return section(**values)
    except ValidationError as error:
        raise ParamsError(f"{name}.{first_line(error)}") from None


PROJECT = Project(
    name="repro-gpt",
    load=load,
    parse_older=parse_older,
    faults=(UserError, GptError),
    description=(
        "One run is one experiment; lower evaluate/val/bits_per_byte is better. "
        "Tick two runs and press Compare.\n\n"
        "A run holds all params and metrics of the pipeline, the curves of its training "
        "(train/...), how long it took (time/...), and as artifacts its samples, pictures, "
        "params.yaml and dvc.lock."
    ),
    columns={
        "metrics.`evaluate/val/bits_per_byte`": 190,
        "metrics.`evaluate/val/loss`": 140,
        "metrics.`train/parameters`": 140,
        "metrics.`time/train_s`": 110,
        "params.`preset`": 80,
        "params.`model.n_layer`": 110,
        "params.`model.n_embd`": 110,
        "params.`train.steps`": 100,
        "params.`train.learning_rate`": 150,
        "params.`data.corpus`": 100,
        "params.`seed`": 70,
    },
)
