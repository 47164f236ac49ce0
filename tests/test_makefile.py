"""The Makefile's environment belongs to the folder in which it was made."""

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import missing

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("made_in", "remade"), [("here", False), ("/elsewhere/ours", True), ("", False)]
)
def test_the_environment_is_made_anew_in_a_folder_that_was_moved_or_copied(
    tmp_path: Path, made_in: str, remade: bool
) -> None:
    if shutil.which("make") is None:
        missing("make is not installed (apt install make)")
    folder = tmp_path / "a b's $HOME"
    (folder / ".venv").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(REPOSITORY / name, folder / name)
    text = made_in.replace("here", str(folder.resolve()))
    (folder / ".venv/ready").write_text(text + "\n" * bool(text), encoding="utf-8")
    done = subprocess.run(
        ["make", "-n", ".venv/ready"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert ("-m venv --clear .venv" in done.stdout) == remade, done.stdout
    assert done.stderr == ""
