"""The Makefile's environment belongs to the folder in which it was made."""

from pathlib import Path

import pytest
from run_make import copy_makefile, run_make


@pytest.mark.parametrize(
    ("made_in", "remade"), [("here", False), ("/elsewhere/ours", True), ("", False)]
)
def test_the_environment_is_made_anew_in_a_folder_that_was_moved_or_copied(
    tmp_path: Path, made_in: str, remade: bool
) -> None:
    folder = tmp_path / "a b's $HOME"
    (folder / ".venv").mkdir(parents=True)
    copy_makefile(folder)
    text = made_in.replace("here", str(folder.resolve()))
    (folder / ".venv/ready").write_text(text + "\n" * bool(text), encoding="utf-8")
    done = run_make(folder, "-n", ".venv/ready")
    assert ("-m venv --clear .venv" in done.stdout) == remade, done.stdout
    assert done.stderr == ""
