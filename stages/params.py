"""params.yaml as one strict, typed object.

The whole file is checked by whichever stage runs first, so that a typo in `sample` is not found
after an hour of training; a stage is then handed only the sections that dvc.yaml lists for it.

YAML is read by the rules of YAML 1.2, as DVC reads it: `3e-5` is a number, `no` is a string,
`010` is ten, and a key that stands twice is an error.
"""

import difflib
import re
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    Field,
    NonNegativeInt,
    ValidationError,
    create_model,
    model_validator,
)

from gpt.config import Config, ModelConfig, TrainConfig, first_line
from gpt.errors import ParamsError
from gpt.presets import resolve

FILE = "params.yaml"

# What the stages write, relative to the working folder, as dvc.yaml declares it.
CORPUS = Path("data/corpus")
TOKENS = Path("data/tokens")
MODEL = Path("data/model")
SAMPLES = Path("data/samples/samples.jsonl")
SAMPLES_PAGE = Path("metrics/samples.md")
PREPARE_METRICS = Path("metrics/prepare.json")
TOKENIZE_METRICS = Path("metrics/tokenize.json")
TRAIN_METRICS = Path("metrics/train.json")
EVALUATE_METRICS = Path("metrics/evaluate.json")
SAMPLE_METRICS = Path("metrics/sample.json")
CURVE = Path("metrics/curves/train.csv")
POSITIONS = Path("metrics/curves/positions.csv")
CALIBRATION = Path("metrics/curves/calibration.csv")
LOSS_PICTURE = Path("metrics/pictures/loss.png")

CORPORA = ("verse", "shakespeare", "names", "tinystories", "openwebtext", "fineweb_edu", "own")


class DataParams(Config):
    corpus: str
    weights: list[float]
    path: str = Field(min_length=1)
    files: str = Field(min_length=1)
    column: str = Field(min_length=1)
    shards: int = Field(gt=0)
    sha256: str | None = Field(pattern=r"^[0-9a-f]{64}$")
    seed: int = Field(ge=0, lt=2**63)
    val_fraction: float = Field(gt=0.0, lt=1.0)
    test_fraction: float = Field(ge=0.0, lt=1.0)
    length_range: list[NonNegativeInt] = Field(min_length=2, max_length=2)
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
                raise ValueError(f"data.corpus {name!r} is not known{hint}")
        if len(set(self.corpora)) < len(self.corpora):
            raise ValueError(f"data.corpus {self.corpus} names one twice; give it more weight")
        if self.weights and (len(self.weights) != len(self.corpora) or not min(self.weights) > 0):
            raise ValueError(
                f"data.weights {self.weights} is not one number above 0 for each of "
                f"{', '.join(self.corpora)}; write [] for their sizes"
            )
        return self

    @model_validator(mode="after")
    def something_is_left_to_train_on(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1.0:
            raise ValueError(
                f"data.val_fraction {self.val_fraction} + data.test_fraction "
                f"{self.test_fraction} leave nothing to train on; lower one"
            )
        shortest, longest = self.length_range
        if 0 < longest < shortest:
            raise ValueError(
                f"data.length_range {self.length_range} fits no document; write [shortest, longest]"
            )
        return self


class TokenizerParams(Config):
    kind: Literal["char", "byte", "bpe", "gpt2", "word"]
    # 256 bytes, and perhaps the id between documents.
    vocab_size: int = Field(ge=257, le=2**18)
    min_frequency: int = Field(ge=1)
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
    model: ModelOverrides  # type: ignore[valid-type]
    train: TrainOverrides  # type: ignore[valid-type]
    seed: int = Field(ge=0, lt=2**63)
    evaluate: EvaluateParams
    sample: SampleParams
    runtime: RuntimeParams

    @property
    def model_source(self) -> str:
        """The file that the model is built from; evaluate and sample are handed it too."""
        return self.resolved()[0].source

    def resolved(self) -> tuple[ModelConfig, TrainConfig, dict[str, Any]]:
        """Model and training with the preset filled in, and what was overridden."""
        return resolve(self.preset, _set_keys(self.model), _set_keys(self.train))

    def flat(self) -> dict[str, Any]:
        """{'data.corpus': 'verse', ..., 'model.n_layer': 4, ...}, the preset filled in."""
        model, train, _ = self.resolved()
        sections = self.model_dump()
        sections["model"], sections["train"] = model.model_dump(), train.model_dump()
        del sections["runtime"]
        flat: dict[str, Any] = {}
        for section, values in sections.items():
            if isinstance(values, dict):
                flat |= {f"{section}.{key}": value for key, value in values.items()}
            else:
                flat[section] = values
        return flat


def load(file: str = FILE) -> Params:
    """Reads and checks `file`, relative to the working folder. Raises ParamsError."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParamsError(f"{file}: not found; bring it back: git checkout HEAD {file}") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{file}: byte {error.start} is not UTF-8; save it as UTF-8") from None
    return parse(text, file)


Section = TypeVar("Section", bound=Config)


def check(section: type[Section], name: str, values: dict[str, Any]) -> Section:
    """A section made of `values`, as for options on a command line. Raises ParamsError."""
    try:
        return section(**values)
    except ValidationError as error:
        raise ParamsError(f"{name}.{first_line(error)}") from None


def parse(text: str, file: str = FILE) -> Params:
    """Checks the text of a params file; `file` is named in errors. Raises ParamsError."""
    try:
        loaded = yaml.load(text, Loader=_Yaml12)  # noqa: S506 (a SafeLoader, narrowed)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ParamsError(f"{file}{line}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, KeyError, AttributeError) as error:
        # PyYAML lets what Python says of an impossible number, date or word through as it is.
        raise ParamsError(f"{file}: {' '.join(str(error).split())}; mend that value") from None
    if not isinstance(loaded, dict):
        raise ParamsError(f"{file}: holds no sections; bring it back: git checkout HEAD {file}")
    try:
        params = Params(**loaded)
        params.resolved()
    except ValidationError as error:
        raise ParamsError(f"{file}: {_explain(error)}") from None
    return params


def _set_keys(section: BaseModel) -> dict[str, Any]:
    return {key: value for key, value in section.model_dump().items() if value is not None}


def _explain(error: ValidationError) -> str:
    """One line for the first fault, with the nearest known key or the right spelling."""
    # A misspelt key is both unknown and missing; the unknown one tells more.
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    fault = faults[0]
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _known_keys()
        near = difflib.get_close_matches(where, known, n=1, cutoff=0.5)
        own_name = where.rsplit(".", 1)[-1]
        same = [key for key in known if key.rsplit(".", 1)[-1] == own_name]
        hints = same or near
        return f"{where} is not a key" + (f"; did you mean {hints[0]}?" if hints else "")
    if fault["type"] == "missing":
        return f"{where} is missing; bring it back: git checkout HEAD {FILE}"
    if fault["type"] == "model_type" and len(fault["loc"]) == 1:
        section = str(fault["loc"][0])
        example = "preset=small" if section in ("model", "train") else f"{section}.KEY=VALUE"
        return (
            f"{section} is a section with keys of its own, not {fault['input']!r}; "
            f"write -S {example}, and git checkout HEAD {FILE} brings the section back"
        )
    if fault["input"] is None:
        return f'{where} must not be blank; an off value is written out (0, false, "")'
    return first_line(ValidationError.from_exception_data("params", [_bare(fault)]))


def _bare(fault: Any) -> Any:
    return {key: fault[key] for key in ("type", "loc", "input", "ctx") if key in fault}


def _known_keys() -> list[str]:
    keys: list[str] = []
    for section, field in Params.model_fields.items():
        annotation = field.annotation
        keys.append(section)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            keys += [f"{section}.{key}" for key in annotation.model_fields]
    return keys


class _Yaml12(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2's core schema, duplicates refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is not a name", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"{key} stands here for the second time; keep one",
                    key_node.start_mark,
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Yaml12.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
):
    _Yaml12.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}",
        re.compile(f"^(?:{_pattern})$"),
        list(_first),
    )


# YAML 1.1 would read a leading 0 as octal, and 1:30 as base 60.
def _integer(loader: _Yaml12, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


def _number(loader: _Yaml12, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node).replace(".inf", "inf").replace(".nan", "nan"))


_Yaml12.add_constructor("tag:yaml.org,2002:int", _integer)
_Yaml12.add_constructor("tag:yaml.org,2002:float", _number)
