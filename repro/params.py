"""Reads params.yaml as DVC reads it, into a pydantic model, with errors of one line.

By the rules of YAML 1.2: `3e-5` is a number, `no` is a string, `010` is ten. A key that stands
twice is an error. Knows no key of any project.
"""

import difflib
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from repro.errors import UserError

FILE = "params.yaml"
Schema = TypeVar("Schema", bound=BaseModel)


def read_text(file: str) -> str:
    """The text of `file`, relative to the working folder. Raises UserError."""
    try:
        return Path(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        elsewhere = "" if Path("dvc.yaml").is_file() else "; change to the folder with dvc.yaml"
        raise UserError(f"{file}: not found{elsewhere or _restore(file)}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: byte {error.start} is not UTF-8; save it as UTF-8") from None


def _restore(file: str) -> str:
    """What to do about a broken `file`; for one in a commit or of a stranger there is nothing."""
    return f"; restore it: git checkout HEAD {file}" if file == FILE else ""


def parse_yaml(text: str | bytes, file: str = FILE) -> dict[str, Any]:
    """The mapping that `text` holds; `file` is named in errors. Raises UserError."""
    try:
        # Not in C, six times as fast: there, deep nesting in a stranger's file is a crash.
        loaded = yaml.load(text, Loader=Yaml12)  # noqa: S506 (a SafeLoader, narrowed)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{file}{line}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, KeyError, AttributeError) as error:
        # PyYAML lets Python's own errors for an impossible number, date or tag through.
        raise UserError(f"{file}: {' '.join(str(error).split())}; correct that value") from None
    except RecursionError:
        raise UserError(f"{file}: nested too deeply; write sections of keys") from None
    if not isinstance(loaded, dict):
        raise UserError(f"{file}: holds no sections{_restore(file)}")
    return loaded


def validate(values: dict[str, Any], schema: type[Schema], file: str = FILE) -> Schema:
    """`values` as an instance of `schema`. Raises UserError for the first fault."""
    try:
        return schema(**values)
    except ValidationError as error:
        raise UserError(f"{file}: {_explain(error, schema, file)}") from None


def _explain(error: ValidationError, schema: type[BaseModel], file: str) -> str:
    """One line for the first fault, with the nearest known key or the right spelling."""
    # A misspelt key is both unknown and missing; the unknown one tells more.
    fault = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    where = ".".join(map(str, fault["loc"]))
    if fault["type"] == "extra_forbidden":
        known = _known_keys(schema)
        own_name = where.rpartition(".")[2]
        same = [key for key in known if key.rpartition(".")[2] == own_name]
        hints = same or difflib.get_close_matches(where, known, n=1, cutoff=0.5)
        return f"{where} is not a key" + (f"; did you mean {hints[0]}?" if hints else "")
    if fault["type"] == "missing":
        return f"{where} is missing{_restore(file)}"
    if fault["type"] == "model_type" and len(fault["loc"]) == 1:
        examples = schema.model_fields[where].examples or [f"{where}.KEY=VALUE"]
        restore = f"; write -S {examples[0]}, and{_restore(file)[1:]}" if file == FILE else ""
        return f"{where} is a section with keys of its own, not {fault['input']!r}{restore}"
    if fault["input"] is None:
        return f'{where} must not be blank; write an off value out (0, false, "")'
    if fault["type"] == "value_error":
        return fault["msg"].removeprefix("Value error, ")
    value = repr(fault["input"])
    shown = value if len(value) <= 60 else f"{value[:60]}..."
    return f"{where}: {fault['msg'][0].lower()}{fault['msg'][1:]} (is {shown})"


def _known_keys(schema: type[BaseModel]) -> list[str]:
    keys: list[str] = []
    for section, field in schema.model_fields.items():
        sub_keys = getattr(field.annotation, "model_fields", ())
        keys += [section, *(f"{section}.{key}" for key in sub_keys)]
    return keys


class Yaml12(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2's core schema, duplicates refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            fault = f"the key {key!r} is not a name" if not isinstance(key, str) else ""
            if not fault and key in keys:
                fault = f"{key} stands here for the second time; keep one"
            if fault:
                raise yaml.constructor.ConstructorError(None, None, fault, key_node.start_mark)
            keys.add(key)
        return super().construct_mapping(node, deep)


Yaml12.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
):
    Yaml12.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first)
    )


def _float(loader: Any, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node).replace(".inf", "inf").replace(".nan", "nan"))


# YAML 1.1 would read a leading 0 as octal, and 1:30 as base 60.
Yaml12.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
Yaml12.add_constructor("tag:yaml.org,2002:float", _float)


def value_at(values: Any, key: str) -> Any:
    """values['train']['steps'] for 'train.steps'; None where there is none."""
    for name in key.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


def equal(a: Any, b: Any) -> bool:
    """Equal as params: 0 is 0.0, but True is not 1, at any depth."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)
