"""Files and hashes as DVC has them."""

from pathlib import Path

import pytest

from repro.errors import UserError
from repro.repository import folder_md5, refuse_repository_inside


@pytest.mark.parametrize("clone", ["data/own", "data/own/poems"])
def test_a_git_clone_inside_the_repository_is_refused_and_one_elsewhere_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clone: str
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    (here / clone / ".git").mkdir(parents=True)
    (elsewhere / ".git").mkdir(parents=True)
    (here / ".git").mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(UserError, match=rf"{clone}: a git repository inside this one"):
        refuse_repository_inside(Path("data/own"))
    refuse_repository_inside(elsewhere)


def test_folder_hash_is_that_of_dvc() -> None:
    # From dvc.lock, of a folder with a.txt ("a\n") and sub/b.txt ("b\n").
    files = [
        ("sub/b.txt", "3b5d5c3712955042212316173ccf37be"),
        ("a.txt", "60b725f10c9c85c70d97880dfe8191b3"),
    ]
    assert folder_md5(files) == "849835d274483dc683eb416d6e4f887d.dir"
