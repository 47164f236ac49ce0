"""What a stranger's params.yaml, dvc.lock and metrics may hold, whatever their hashes say."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from trial_repository import REPOSITORY

from commands.lineage import corpus_md5, params_of, stated_scores
from gpt.errors import SubmissionError


@pytest.mark.parametrize("value", ["0.5", None, True, math.nan, -math.inf, 10**400, [1.0], {}])
def test_a_score_that_is_no_finite_number_is_refused(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "metrics/evaluate.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"val": {"bits_per_byte": value}}), encoding="utf-8")
    with pytest.raises(SubmissionError, match=r"has no finite number val.bits_per_byte"):
        stated_scores(tmp_path)


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[]", '{"val": 1}', "9" * 5_000])
def test_metrics_of_another_form_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/evaluate.json").write_text(text, encoding="utf-8")
    with pytest.raises(SubmissionError, match=r"has no finite number val.bits_per_byte"):
        stated_scores(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"a: " + b"[" * 600, "nested too deeply"),
        (b"a: &a [1]\nb: *a\n", "has aliases (*name)"),
        (b"a: &a [*a]\n", "has aliases (*name)"),
        (b"\xff", "byte 0 is not UTF-8"),
        (b"\x1b[31m: 1", "special characters are not allowed"),
        (b'"\\e[31m": 1\n"\\e[31m": 1\n', r"\x1b[31m stands here for the second time"),
        (b"seed: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        (b"#" * 300_000, "larger than 262144 bytes"),
        (b"- 1\n", "holds no sections"),
    ],
    ids=["deep", "alias", "itself", "bytes", "control", "escape", "tag", "large", "list"],
)
def test_yaml_that_could_do_harm_is_refused_in_a_line(
    tmp_path: Path, text: bytes, reason: str
) -> None:
    for name in ("params.yaml", "dvc.lock"):
        (tmp_path / name).write_bytes(text)
    for reader in (params_of, corpus_md5):
        with pytest.raises(SubmissionError) as raised:
            reader(tmp_path)
        assert reason in str(raised.value)
        assert str(raised.value).isprintable()


def test_what_a_stranger_names_in_params_is_printed_without_what_steers_a_terminal(
    repository_params: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "params.yaml").write_text(
        f'"\\e]0;owned\\a": 1\n{repository_params}', encoding="utf-8"
    )
    params_of(tmp_path)
    assert capsys.readouterr().err.strip().isprintable()


@pytest.fixture
def repository_params(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(REPOSITORY)
    return Path("params.yaml").read_text(encoding="utf-8")
