"""Whatever a stranger changes in a submission, it verifies or fails with one line."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from forged_submissions import cover_up, vouch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from commands.submission import verify
from gpt.errors import SubmissionError

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["", "..", "/etc/passwd", "../../x.py", "\x1b[31m", "1e400 tokens", "\ud800"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)
BYTES = st.binary(max_size=40) | st.sampled_from([b"", b"[" * 600, b"a: &a [*a]", b"{", b"NaN"])
FILES = (
    *("submission.json", "params.yaml", "dvc.lock", "poem.txt"),
    *("metrics/evaluate.json", "metrics/curves/train.csv"),
    *("data/model/config.json", "data/model/tokenizer.json", "data/model/model.safetensors"),
)


def containers(value: Any) -> list[Any]:
    """`value` and what is in it, as far as it can be changed."""
    if not isinstance(value, dict | list):
        return []
    inner = value.values() if isinstance(value, dict) else value
    return [value, *(container for item in inner for container in containers(item))]


def change_a_value(data: st.DataObject, path: Path) -> None:
    """Replaces, removes or adds something anywhere in a JSON or YAML file."""
    is_json = path.suffix == ".json"
    content = (json.loads if is_json else yaml.safe_load)(path.read_text(encoding="utf-8"))
    container = data.draw(st.sampled_from(containers(content)))
    keys = sorted(container) if isinstance(container, dict) else list(range(len(container)))
    action = data.draw(st.sampled_from(["replace", "remove", "add"]))
    if action == "add" and isinstance(container, dict):
        container[data.draw(st.text(max_size=5))] = data.draw(VALUES)
    elif action == "add":
        container.append(data.draw(VALUES))
    elif keys:
        key = data.draw(st.sampled_from(keys))
        if action == "remove":
            del container[key]
        else:
            container[key] = data.draw(VALUES)
    text = json.dumps(content) if is_json else yaml.safe_dump(content, allow_unicode=True)
    path.write_bytes(text.encode(errors="surrogatepass"))


def vouch_for_all(folder: Path) -> None:
    vouch(folder, *FILES[1:])


@pytest.mark.slow
@pytest.mark.fault(24)
@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=set(Phase) - {Phase.shrink},  # each example takes half a second
)
@given(data=st.data())
def test_any_submission_is_verified_or_refused_in_one_line(
    submission: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    # What is long is allowed, and tells nothing here.
    monkeypatch.setattr("commands.submission.MAX_TOKENS", 300)
    with TemporaryDirectory() as name:
        folder = Path(name) / "submission"
        shutil.copytree(submission, folder)
        path = folder / data.draw(st.sampled_from(FILES))
        if path.suffix in (".json", ".yaml", ".lock") and data.draw(st.booleans()):
            change_a_value(data, path)
        else:
            raw = bytearray(path.read_bytes())
            at = data.draw(st.integers(0, len(raw)))
            raw[at : at + data.draw(st.integers(0, 9))] = data.draw(BYTES)
            path.write_bytes(bytes(raw))
        cover = data.draw(st.sampled_from([cover_up, vouch_for_all]))
        with suppress(Exception):  # what the forger cannot read either stays as it is
            cover(folder)
        try:
            verified = verify(folder)
        except SubmissionError as error:
            assert str(error).isprintable()
            assert len(str(error)) < 1_000
        else:
            assert verified.bits_per_byte is None or 0 < verified.bits_per_byte < 100
