"""What holds on Windows and macOS too, as far as it can be tested on another system."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml
from pipeline_clone import REPOSITORY, Clone
from simulated_windows import ILLEGAL, OURS

from stages import params

SIMULATED = str(REPOSITORY / "tests/simulated_windows.py")
PATHS = {name for name, value in vars(params).items() if isinstance(value, Path)}


@pytest.fixture(scope="module")
def built(make_clone: Callable[..., Clone]) -> Clone:
    """A clone in which the pipeline has run here."""
    clone = make_clone(runtime__checkpoint_every="10")
    clone.dvc("repro")
    clone.commit("results")
    return clone


def test_every_file_is_the_same_bytes_in_a_clone_with_windows_line_endings(
    make_clone: Callable[..., Clone], tmp_path: Path
) -> None:
    here = make_clone()
    (here.folder / "data/own/poem.txt").write_bytes(b"a user's text\r\n")
    here.commit("a text")
    there = here.checked_out_as_on_windows(tmp_path / "clone")
    for name in filter(None, here.git("ls-files", "-z").split("\0")):
        assert (there.folder / name).read_bytes() == (here.folder / name).read_bytes(), name


@pytest.mark.slow
def test_the_pipeline_in_a_clone_with_windows_line_endings_gives_the_same_lock(
    built: Clone, tmp_path: Path
) -> None:
    there = built.checked_out_as_on_windows(tmp_path / "clone")
    before = built.lock()
    (there.folder / "dvc.lock").unlink()
    there.dvc("repro")
    assert there.lock() == before


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info[:2] != (3, 11),
    reason="the simulation reads /proc and overrides pathlib of Python 3.11",
)
def test_a_simulated_windows_stops_and_resumes_and_gives_the_same_results(built: Clone) -> None:
    def on_windows(*words: str, check: bool = True, **more: str) -> str:
        return built.run(
            sys.executable, SIMULATED, *words, check=check, PYTHONIOENCODING="cp1252", **more
        )

    for stage in ("prepare", "tokenize"):
        on_windows(f"stages.{stage}")
    output = on_windows("stages.train", check=False, STOP_AT="step_00000020")
    assert built.code == 75 and "stopped by SIGINT" in output
    assert "resuming from step" in on_windows("stages.train")
    for stage in ("evaluate", "sample"):
        on_windows(f"stages.{stage}")
    assert "up to date" in built.dvc("status")
    # What is made there is accepted here, and the console's code page has no check mark.
    gpt = "commands.cli"
    words = "--author Ada --candidates 1 --choose 0 --max-new-tokens 5"
    on_windows(gpt, "submit", *words.split())
    assert "consistent" in built.run(sys.executable, "-m", gpt, "verify", "submission")
    assert "workspace" in on_windows(gpt, "compare")
    on_windows(gpt, "workshop", "start")
    output = on_windows(gpt, "workshop", "check", "1", check=False)
    assert "✗" in output and built.code == 1


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_every_name_of_the_standard_library_is_there_on(platform: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--platform", platform, "--cache-dir", tmp_path]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# --- files ----------------------------------------------------------------------------------------


def product_calls() -> Iterator[tuple[str, str, ast.Call]]:
    """(where, function, call) of each call in the product's code."""
    for package in OURS:
        for file in (REPOSITORY / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    name = ast.unparse(node.func).rpartition(".")[2]
                    yield f"{file.relative_to(REPOSITORY)}, line {node.lineno}", name, node


def test_text_is_written_with_the_same_line_breaks_everywhere() -> None:
    for where, name, call in product_calls():
        keywords = {keyword.arg for keyword in call.keywords}
        mode = next((ast.unparse(word) for word in call.args[-1:]), "")
        opens = name == "open" and re.fullmatch("'[wax]t?'", mode)
        if opens or (name == "write_text" and "encoding" in keywords):
            assert "newline" in keywords, f'{where}: newline="\\n"'
        if name == "to_csv":
            assert "lineterminator" in keywords, f'{where}: lineterminator="\\n"'


def test_what_another_process_prints_is_not_decoded_by_the_code_page() -> None:
    for where, _, call in product_calls():
        keywords = {keyword.arg for keyword in call.keywords}
        assert not {"text", "universal_newlines"} & keywords or "encoding" in keywords, where


def test_a_path_that_is_compared_or_stored_has_slashes() -> None:
    for where, name, call in product_calls():
        if name == "str" or (name == "map" and ast.unparse(call.args[0]) == "str"):
            nodes = [node for argument in call.args for node in ast.walk(argument)]
            names = {getattr(node, "id", getattr(node, "attr", "")) for node in nodes}
            assert not names & PATHS, f"{where}: .as_posix()"


def test_every_tracked_name_is_one_file_on_windows_and_macos(tracked_files: list[Path]) -> None:
    names = [file.relative_to(REPOSITORY).as_posix() for file in tracked_files]
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert name.isascii() and len(name) < 120, name
        assert not any(ILLEGAL.search(step) for step in name.split("/")), name


# --- commands -------------------------------------------------------------------------------------


def recipes() -> Iterator[str]:
    """The simple commands of the Makefile's recipes."""
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^\t@?(.*)", text, re.MULTILINE):
        yield from filter(None, map(str.strip, re.split(r"&&|\|\||;|[{}]|\bthen\b|\belse\b", line)))


def test_recipes_name_the_environments_programs_by_their_folder() -> None:
    """make 3.81, which macOS has, does not search the exported PATH."""
    programs = {program.name for program in entry_points(group="console_scripts")}
    programs |= {"python", "python3", "pip"}
    for command in recipes():
        assert command.split()[0] not in programs, command


def test_recipes_use_no_option_that_macos_lacks() -> None:
    gnu = r"\b(sed -i|readlink -f|cp --|date -d|grep -P|stat -c|xargs -[dr]|sort -V|mktemp --)"
    for command in recipes():
        assert not re.search(gnu, command), command


def test_the_workflow_runs_three_systems_and_the_oldest_python_that_is_promised() -> None:
    text = (REPOSITORY / ".github/workflows/test.yml").read_text(encoding="utf-8")
    matrix = yaml.safe_load(text)["jobs"]["systems"]["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f">={matrix['python'][0]}" == project["requires-python"]
    # YAML would read 3.10 as 3.1.
    assert all(isinstance(version, str) for version in matrix["python"])
    used = set(re.findall(r"\$\{\{ matrix\.(\w+) \}\}", text))
    assert used == matrix.keys() - {"exclude"}
    for combination in matrix["exclude"]:
        assert all(value in matrix[key] for key, value in combination.items())
