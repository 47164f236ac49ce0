"""The course: its own solutions pass every check, and each common mistake is named."""

import ast
from pathlib import Path

import pytest
from course_edits import MISTAKES, VARIANTS
from course_solutions import SOLUTIONS
from typer.testing import CliRunner

from commands.cli import app
from workshop import course
from workshop.checking import WorkshopError

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = {file: number for number, (file, _) in course.PARTS.items()}


def hints(folder: Path, name: str, text: str) -> dict[str, str]:
    """The hints for a file, by the name of the check."""
    (folder / name).write_text(text, encoding="utf-8")
    results = course.check(PARTS[name], folder)
    return {result.name: result.hint for result in results if result.hint}


@pytest.mark.parametrize("name", PARTS)
def test_the_blocks_of_a_page_pass_every_check(tmp_path: Path, name: str) -> None:
    assert hints(tmp_path, name, SOLUTIONS[name]) == {}


def signatures(text: str) -> dict[str, str]:
    """Each function and method, with its arguments."""
    signature_of: dict[str, str] = {}
    for node in ast.parse(text).body:
        for member in [node, *(node.body if isinstance(node, ast.ClassDef) else [])]:
            if isinstance(member, ast.FunctionDef):
                owner = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
                returned = ast.unparse(member.returns) if member.returns else ""
                signature_of[owner + member.name] = f"({ast.unparse(member.args)}) -> {returned}"
    return signature_of


@pytest.mark.parametrize("name", PARTS)
def test_a_page_completes_its_skeleton(name: str) -> None:
    skeleton = (course.SKELETONS / name).read_text(encoding="utf-8")
    expected, actual = signatures(skeleton), signatures(SOLUTIONS[name])
    assert {key: actual.get(key) for key in expected} == expected


@pytest.mark.parametrize("name", PARTS)
def test_a_skeleton_solves_nothing_and_says_so(tmp_path: Path, name: str) -> None:
    skeleton = (course.SKELETONS / name).read_text(encoding="utf-8")
    by_check = hints(tmp_path, name, skeleton)
    assert len(by_check) == len(course.checklist(PARTS[name]).checks)
    assert all("not written yet" in hint for hint in by_check.values())


def changed(name: str, changes: dict[str, str]) -> str:
    """The solution of a file, with each of `changes` made everywhere."""
    text = SOLUTIONS[name]
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_common_mistake_is_named_first(tmp_path: Path, mistake: str) -> None:
    name, changes, expected = MISTAKES[mistake]
    by_check = hints(tmp_path, name, changed(name, changes))
    assert next(iter(by_check.values()), "").startswith(expected), by_check


@pytest.mark.parametrize("variant", VARIANTS)
def test_another_correct_solution_gets_no_hint(tmp_path: Path, variant: str) -> None:
    name, changes = VARIANTS[variant]
    assert hints(tmp_path, name, changed(name, changes)) == {}


def test_a_fault_in_the_learners_code_is_one_line_with_its_line_number(tmp_path: Path) -> None:
    text = "class CharTokenizer:\n    def __init__(self, text):\n        self.ids = text[0][7]\n"
    by_check = hints(tmp_path, "tokenizer.py", text)
    assert "IndexError: string index out of range (tokenizer.py, line 3)" in by_check.values()
    by_check = hints(tmp_path, "tokenizer.py", "def encode(:\n")
    (hint,) = by_check.values()
    assert "SyntaxError" in hint and "line 1" in hint
    (hint,) = hints(tmp_path, "tokenizer.py", "import sys\nsys.exit()\n").values()
    assert "it ends the program" in hint and "line 2" in hint


def test_starting_overwrites_nothing(tmp_path: Path) -> None:
    paths = course.start(tmp_path / "scratchpad")
    assert [path.name for path in paths] == list(PARTS)
    paths[1].write_text("mine", encoding="utf-8")
    with pytest.raises(WorkshopError, match="is not overwritten"):
        course.start(tmp_path / "scratchpad")
    assert paths[1].read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("command", ["start", "text"])
def test_a_folder_that_cannot_be_written_is_one_line(command: str) -> None:
    done = CliRunner().invoke(app, ["workshop", command, "--folder", "/proc/nowhere"])
    assert done.exit_code == 2
    (line,) = done.output.splitlines()
    assert line.startswith("gpt: /proc/nowhere")
    assert line.endswith("; choose another --folder")


def test_the_command_starts_checks_and_exits_as_it_should(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    missing = runner.invoke(app, ["workshop", "check", "1"])
    assert (missing.exit_code, "gpt workshop start" in missing.output) == (2, True)
    assert runner.invoke(app, ["workshop", "start"]).exit_code == 0
    again = runner.invoke(app, ["workshop", "start"])
    assert (again.exit_code, "is not overwritten" in again.output) == (2, True)
    unsolved = runner.invoke(app, ["workshop", "check"])
    assert unsolved.exit_code == 1
    assert "part 2: 0 of" in unsolved.output
    for name, text in SOLUTIONS.items():
        (tmp_path / "scratchpad" / name).write_text(text, encoding="utf-8")
    done = runner.invoke(app, ["workshop", "check"])
    assert done.exit_code == 0, done.output
    assert "✗" not in done.output
    assert runner.invoke(app, ["workshop", "check", "5"]).exit_code == 2
