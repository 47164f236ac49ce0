"""The learner's files as programs: python train.py, then python generate.py, in their folder."""

import subprocess
import sys
from pathlib import Path

import pytest
from course_solutions import SOLUTIONS
from typer.testing import CliRunner

from commands.cli import app
from workshop import course

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = {"steps=2000": "steps=200", '"n_layer": 4': '"n_layer": 1', '"n_embd": 128': '"n_embd": 32'}


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # -W error: a learner should not begin with warnings.
    return subprocess.run(
        [sys.executable, "-X", "utf8", "-W", "error", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The four files, complete, with a model and a training that take seconds."""
    for name, text in SOLUTIONS.items():
        for old, new in SMALL.items() if name == "train.py" else ():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_they_train_on_a_text_save_and_write(folder: Path) -> None:
    (folder / "input.txt").write_text("Rain falls, and the märz wind calls.\n" * 300, "utf-8")
    trained = python(folder, "train.py")
    assert (trained.returncode, trained.stderr) == (0, "")
    loss = float(trained.stdout.split("validation loss ")[1])
    assert loss < 1.0
    # From elsewhere too, and after a text of one's own.
    written = python(folder.parent, str(folder / "generate.py"), "Rain falls")
    assert (written.returncode, written.stderr) == (0, "")
    assert written.stdout.startswith("Rain falls")
    assert len(written.stdout) == len("Rain falls") + 500 + 1


def test_what_is_missing_is_one_line(folder: Path) -> None:
    for program, missing, advice in (
        ("train.py", "input.txt", "copy a text there, or write one: gpt workshop text"),
        ("generate.py", "model.pt", "python train.py makes it"),
    ):
        done = python(folder, program)
        assert done.returncode == 1
        assert done.stderr == f"{folder / missing}: not found; {advice}\n"


def test_the_text_of_the_course_needs_no_network_and_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "PLAYS", 2)
    command = ["workshop", "text", "--folder", str(tmp_path)]
    assert CliRunner().invoke(app, command).exit_code == 0
    text = (tmp_path / "input.txt").read_text(encoding="utf-8")
    assert text.count("THE TRAGEDY OF") + text.count("THE COMEDY OF") >= 1
    (tmp_path / "input.txt").write_text("mine", encoding="utf-8")
    again = CliRunner().invoke(app, command)
    assert (again.exit_code, "is not overwritten" in again.output) == (2, True)
    assert (tmp_path / "input.txt").read_text(encoding="utf-8") == "mine"


def test_an_unfinished_program_says_what_is_not_written(tmp_path: Path) -> None:
    course.start(tmp_path)
    done = python(tmp_path, "train.py")
    assert done.returncode == 1
    assert "in main\n    raise NotImplementedError\n" in done.stderr
