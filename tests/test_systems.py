"""What holds on Windows and macOS too, as far as it can be tested on another system."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pipeline_clone import Clone


def test_every_file_is_the_same_bytes_in_a_clone_with_windows_line_endings(
    make_clone: Callable[..., Clone], tracked_files: list[Path], tmp_path: Path
) -> None:
    here = make_clone()
    (here.folder / "data/own/poem.txt").write_bytes(b"a user's text\r\n")
    here.commit("a text")
    there = here.checked_out_as_on_windows(tmp_path / "clone")
    for name in here.git("ls-files", "-z").split("\0"):
        file = here.folder / name
        assert not file.is_file() or (there.folder / name).read_bytes() == file.read_bytes(), name


@pytest.mark.slow
def test_the_pipeline_in_a_clone_with_windows_line_endings_gives_the_same_lock(
    make_clone: Callable[..., Clone], tmp_path: Path
) -> None:
    here = make_clone()
    there = here.checked_out_as_on_windows(tmp_path / "clone")
    here.dvc("repro")
    there.dvc("repro")
    assert there.lock() == here.lock()
