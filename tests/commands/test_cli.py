"""The list of gpt's commands, and how they begin and end."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from trial_repository import REPOSITORY, TrialRepository
from typer.testing import CliRunner

from commands.cli import COMMANDS, app, load_command

LARGE = {"torch", "pandas", "mlflow", "scipy", "matplotlib", "dvc", "sqlalchemy"}


def imported(*arguments: str, folder: Path = REPOSITORY, code: int = 0) -> set[str]:
    """The top-level packages that `gpt ARGUMENTS`, which exits with `code`, imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "commands.cli", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    packages = set(re.findall(r"^import time:.*\| +(\w+)", done.stderr, re.MULTILINE))
    assert done.returncode == code, done.stderr
    return packages


def test_help_waits_for_no_large_library() -> None:
    assert imported("--help") & (LARGE | {"numpy", "pydantic", "rich"}) == set()


@pytest.mark.parametrize("name", ["workshop", "report"])
def test_help_of_a_command_waits_for_no_large_library(name: str) -> None:
    assert imported(name, "--help") & LARGE == set()


def test_the_first_part_of_the_course_is_checked_without_pytorch(tmp_path: Path) -> None:
    for words, code in ((("start",), 0), (("check", "1"), 1)):
        packages = imported("workshop", *words, "--folder", str(tmp_path / "mine"), code=code)
        assert packages & (LARGE | {"numpy"}) == set()


def test_a_report_without_results_waits_for_nothing_that_it_would_draw_with(
    tmp_path: Path,
) -> None:
    trial = TrialRepository(tmp_path / "repository")
    assert (
        imported("report", folder=trial.folder, code=2)
        & {"torch", "mlflow", "matplotlib", "pandas"}
        == set()
    )


def test_help_lists_every_command() -> None:
    output = CliRunner().invoke(app, ["--help"]).output
    assert [name for name in COMMANDS if name not in output] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_a_listed_command_is_in_its_file(name: str) -> None:
    command = load_command(name)
    assert command.help or command.commands
    done = CliRunner().invoke(app, [name, "--help"])
    assert (done.exit_code, name in done.output) == (0, True), done.output
    assert "--install-completion" not in done.output


def test_a_command_that_does_not_exist_is_refused() -> None:
    done = CliRunner().invoke(app, ["reprot"])
    assert (done.exit_code, "No such command 'reprot'" in done.output) == (2, True)


def test_outside_a_repository_a_command_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["compare"])
    expected = f"gpt: {tmp_path}: not inside a DVC repository; change to the folder with dvc.yaml\n"
    assert (done.exit_code, done.output) == (2, expected)
