"""What a command's paths and ports are taken for, and what it says where it cannot write."""

from pathlib import Path

import pytest
from saved_models import saved_model
from trial_repository import TrialRepository
from typer.testing import CliRunner

from commands.cli import app


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialRepository:
    """A repository with a trained model, which is the working folder."""
    repository = TrialRepository(tmp_path / "repository")
    monkeypatch.chdir(repository.folder)
    repository.set(tracking="false")
    saved_model(repository.folder / "data/model")
    return repository


def line_of(*words: str) -> str:
    """The one line with which `gpt WORDS` refuses."""
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2, (done.output, done.exception)
    (line,) = done.output.splitlines()
    return line


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "--prompt", "a", "--max-new-tokens", "1"),
        ("export", "--to", "hf", "--out", "here"),
    ],
)
def test_a_model_is_meant_from_where_the_command_runs_and_by_default_the_pipelines(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    saved_model(trial.folder / "scratchpad/mine")
    for model in ([], ["--model", "mine"]):
        monkeypatch.chdir(trial.folder / "scratchpad")  # a command changes to the root
        done = CliRunner().invoke(app, [*words, *model])
        assert done.exit_code == 0, done.output
    monkeypatch.chdir(trial.folder)
    assert "mine/config.json: no model here" in line_of(*words, "--model", "mine")


def test_an_error_begins_its_own_line_after_the_prompt(trial: TrialRepository) -> None:
    done = CliRunner().invoke(app, ["sample", "--prompt", "é"])
    assert done.exit_code == 2
    assert done.output.startswith("é\ngpt: character 0 'é'")


@pytest.mark.loopback
@pytest.mark.parametrize("port", ["99999", "-1"])
def test_a_port_that_is_none_is_refused_in_one_line(trial: TrialRepository, port: str) -> None:
    expected = f"gpt: --port {port}: not a port; use 1024 to 65535, or 0 for a free one"
    assert line_of("ui", "--port", port) == expected


@pytest.mark.parametrize("out", ["file", "file/below", "/proc/nowhere", "taken"])
@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_an_export_that_cannot_be_written_is_one_line(
    trial: TrialRepository, to: str, out: str
) -> None:
    trial.write("file", "a file where a folder should be")
    for name in ("model.safetensors", "model.gguf"):
        (trial.folder / "taken" / name).mkdir(parents=True)
    line = line_of("export", "--to", to, "--out", out)
    assert f"{out}: could not be written (" in line
    assert line.endswith("; choose another --out")


def test_a_model_of_the_users_own_that_ends_the_program_is_named(trial: TrialRepository) -> None:
    trial.write("mine.py", "raise SystemExit\n")
    trial.set(source="mine.py")
    line = line_of("plan", "--seconds", "0")
    assert line.endswith("mine.py:1: raise SystemExit: it ends the program; remove it")
