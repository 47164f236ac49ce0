"""`gpt export` as a user runs it."""

import json
from pathlib import Path

import pytest
from saved_models import saved_model
from trial_repository import TrialRepository
from typer.testing import CliRunner

from commands.cli import app


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a trained model in it."""
    trial = TrialRepository(tmp_path / "repository")
    monkeypatch.chdir(trial.folder)
    (trial.folder / "data").mkdir(exist_ok=True)
    saved_model(trial.folder / "data/model")
    return trial.folder


def test_the_model_is_written_to_a_folder_named_after_the_format(folder: Path) -> None:
    done = CliRunner().invoke(app, ["export", "--to", "hf"])
    assert done.exit_code == 0, done.output
    files = {line.removeprefix("export/hf/") for line in done.output.splitlines()}
    assert files == {path.name for path in (folder / "export/hf").iterdir()}
    config = json.loads((folder / "export/hf/config.json").read_bytes())
    assert config["architectures"] == ["GPT2LMHeadModel"]


def test_out_is_relative_to_where_the_command_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "data")
    done = CliRunner().invoke(app, ["export", "--to", "hf", "--out", "mine"])
    assert done.exit_code == 0, done.output
    assert (folder / "data/mine/model.safetensors").is_file()


def test_a_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    (folder / "file").write_text("", encoding="utf-8")
    done = CliRunner().invoke(app, ["export", "--to", "hf", "--out", "file"])
    assert done.exit_code == 2
    assert "file: could not be written" in done.output.replace("\n", "")
    assert "choose another --out" in done.output


def test_without_a_model_a_line_says_what_to_run(folder: Path) -> None:
    (folder / "data/model/config.json").unlink()
    done = CliRunner().invoke(app, ["export", "--to", "hf"])
    assert done.exit_code == 2
    assert "dvc repro" in done.output
