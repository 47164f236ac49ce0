"""JSON files that are the same bytes for the same value, and the sha256 of a file."""

import hashlib
import json
from pathlib import Path
from typing import Any

from gpt.errors import DataError, damaged


def write_json(path: Path, value: Any) -> None:
    """Writes JSON that is the same bytes for the same value: sorted keys, LF, no NaN."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() + b"\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object that a stage wrote. Raises DataError if it is missing or damaged."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: not found; run the stages before: dvc repro") from None
    except (OSError, ValueError, RecursionError):
        raise damaged(path, "is not JSON") from None
    if not isinstance(value, dict):
        raise damaged(path, "is not a JSON object")
    return value


def rounded(value: Any) -> Any:
    """Rounds every float in `value`, a float or nested dicts of them, to 6 decimals."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return round(value, 6) if isinstance(value, float) else value


def flattened(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Joins the keys of nested dicts by dots: {"model.n_layer": 4, ...}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = prefix + key
        flat |= flattened(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def sha256_of(path: Path) -> str:
    """Hashes a file, in hexadecimal. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_all(hashes: dict[str, str]) -> str:
    """Combines the hashes of files by name: the sha256 of what `sha256sum` prints for them."""
    return hashlib.sha256("".join(f"{h}  {n}\n" for n, h in hashes.items()).encode()).hexdigest()
