"""The list of gpt's commands, and how they begin and end."""

import subprocess
import sys
from pathlib import Path

import pytest
from trial_repository import REPOSITORY
from typer.testing import CliRunner

from commands.cli import COMMANDS, app, load_command

HELP = """
import sys
from typer.testing import CliRunner
from commands.cli import app
done = CliRunner().invoke(app, ["--help"])
assert done.exit_code == 0, done.output
print(*sorted({"torch", "pandas", "mlflow", "scipy"} & set(sys.modules)))
"""


def test_help_waits_for_no_large_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


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
