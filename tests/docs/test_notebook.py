"""The course as a notebook: made from its pages, and run from top to bottom."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from course_solutions import SOLUTIONS
from IPython.core.interactiveshell import InteractiveShell
from pipeline_clone import SMALL, Clone

from workshop import course, notebook
from workshop.cells import load_ipython_extension, save_piece
from workshop.checking import WorkshopError

# These fail at first, as the pages say.
FAILS_FIRST = re.compile(r"!gpt workshop check \d")


def sources(text: str) -> list[str]:
    """The sources of the code cells."""
    return ["".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "code"]


@pytest.mark.parametrize(
    ("path", "make"),
    [(notebook.NOTEBOOK, notebook.make_notebook), (notebook.COLAB, notebook.make_colab)],
    ids=["course", "colab"],
)
def test_a_committed_notebook_is_what_the_pages_make(path: Path, make: Callable[[], str]) -> None:
    committed = path.read_text(encoding="utf-8")
    assert committed == make(), "make it again: python -m workshop.notebook"
    for cell in json.loads(committed)["cells"]:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
        assert re.fullmatch(r"[a-z0-9-]{1,64}", cell["id"])


def test_its_pieces_are_the_files_of_the_course(tmp_path: Path) -> None:
    for source in sources(notebook.make_notebook()):
        if match := re.match(r"%%piece scratchpad/(\S+) (\d+)\n", source):
            save_piece(tmp_path / match[1], int(match[2]), source[match.end() :])
    assert {path.name for path in tmp_path.iterdir()} == set(SOLUTIONS)
    for number in course.PARTS:
        assert [result.hint for result in course.check(number, tmp_path) if result.hint] == []


def test_a_page_becomes_text_examples_and_commands() -> None:
    page = (
        "# A\n\n    dvc repro \\\n      -f\n    make ui\n\n- one\n\n        dvc repro\n\n"
        "```python\n>>> for i in (1, 2):\n...     print(i)\n1\n2\n```\n\nNext: [B](b.md).\n"
    )
    assert list(notebook.cells_of(page)) == [
        ("markdown", "# A"),
        ("code", "!dvc repro \\\n      -f"),
        ("markdown", "    make ui\n\n- one\n\n        dvc repro"),
        ("code", "for i in (1, 2):\n    print(i)"),
    ]


def test_a_cell_that_names_an_experiment_can_be_run_again() -> None:
    page = "    dvc exp run --name ours -S seed=2\n    dvc exp run -S seed=3\n"
    assert [source for _, source in notebook.cells_of(page)] == [
        "!dvc exp remove --quiet ours\n!dvc exp run --name ours -S seed=2",
        "!dvc exp run -S seed=3",
    ]
    named = [source for source in sources(notebook.make_notebook()) if "--name" in source]
    assert len(named) == 2
    assert all(source.startswith("!dvc exp remove --quiet ") for source in named)


def test_a_piece_replaces_itself_alone(tmp_path: Path) -> None:
    path = course.start(tmp_path)[1]
    for number, text in ((1, "a = 1"), (3, "c = 3"), (2, "b = 2\n\n\n"), (1, "a = 4")):
        save_piece(path, number, text)
    written = path.read_text(encoding="utf-8")
    assert re.findall(r"^\w = \d$", written, re.M) == ["a = 4", "b = 2", "c = 3"]
    assert "NotImplementedError" not in written


def test_a_file_written_without_the_notebook_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text("mine = 1\n", encoding="utf-8")
    with pytest.raises(WorkshopError, match=r"model\.py: was written without this notebook"):
        save_piece(path, 1, "a = 1")
    assert path.read_text(encoding="utf-8") == "mine = 1\n"


def test_a_cell_that_does_not_run_is_no_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)  # IPython warns of another one than its own
    monkeypatch.chdir(tmp_path)
    shell = InteractiveShell()
    load_ipython_extension(shell)
    assert shell.run_cell("%%piece model.py 1\na = 1\n").success
    assert shell.user_ns["a"] == 1
    kept = Path("model.py").read_text(encoding="utf-8")
    assert kept == "# piece 1\na = 1\n\n\n"
    # A file's main() is for the command line, and the shell is itself again after the cell.
    cell = "%%piece model.py 1\na = 1\nif __name__ == '__main__':\n    a = 2\n"
    assert shell.run_cell(cell).success
    assert (shell.user_ns["a"], shell.user_ns["__name__"]) == (1, "__main__")
    kept = Path("model.py").read_text(encoding="utf-8")
    for cell in ("%%piece model.py 1\na = b\n", "%%piece model.py\na = 2\n"):
        assert not shell.run_cell(cell).success
        assert Path("model.py").read_text(encoding="utf-8") == kept


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_notebook_runs_from_top_to_bottom(
    tmp_path: Path, tracked_files: list[Path], texts: Path
) -> None:
    clone = Clone(tmp_path / "clone", tracked_files, SMALL | {"data.max_bytes": "60000"})
    seen: set[str] = set()
    cells = []
    for source in sources(notebook.make_notebook()):
        code = source.replace("steps=2000", "steps=20")
        if source.startswith("!"):
            # A cell with ! does not fail by itself.
            first = FAILS_FIRST.match(source) and source not in seen
            code += f"\nassert _exit_code == {1 if first else 0}, _exit_code"
        seen.add(source)
        cells.append(code)
    content = json.loads(notebook.make_notebook())
    content["cells"] = [
        notebook.as_json(f"cell-{number}", "code", code) for number, code in enumerate(cells)
    ]
    path = clone.folder / "docs/workshop.ipynb"
    path.write_text(json.dumps(content), encoding="utf-8")
    execute(path, clone.folder, clone.environment())


def execute(path: Path, folder: Path, environment: dict[str, str]) -> list[dict[str, Any]]:
    """Runs a notebook in `folder`; the data of what its cells display."""
    done = subprocess.run(
        ["jupyter-execute", "--timeout=600", "--inplace", str(path)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [o["data"] for cell in cells for o in cell.get("outputs", []) if "data" in o]


@pytest.mark.slow
def test_the_cell_for_colab_clones_installs_trains_and_shows(
    tmp_path: Path, tracked_files: list[Path]
) -> None:
    origin = Clone(tmp_path / "origin", tracked_files, SMALL)
    (tmp_path / "bin").mkdir()
    pip = tmp_path / "bin/pip"
    pip.write_text(f"#!/bin/sh\necho $PWD: $@ >> {tmp_path}/installed\n", encoding="utf-8")
    pip.chmod(0o755)
    text = notebook.make_colab().replace("/content/", f"{tmp_path}/content/")
    path = tmp_path / "colab.ipynb"
    path.write_text(text.replace("https://github.com/YOUR-NAME/repro-gpt", str(origin.folder)))
    environment = origin.environment()
    environment["PATH"] = f"{pip.parent}{os.pathsep}{environment['PATH']}"
    shown = execute(path, tmp_path, environment)
    # No constraints, which would replace Colab's torch.
    installed = (tmp_path / "installed").read_text(encoding="utf-8")
    assert installed == f"{tmp_path}/content/repro-gpt: install -q -e .\n"
    samples, picture = (data for data in shown if data.keys() & {"text/markdown", "image/png"})
    assert "".join(samples["text/markdown"]).startswith("# Samples")
    assert len(picture["image/png"]) > 10_000
