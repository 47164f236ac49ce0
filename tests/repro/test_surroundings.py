"""Odd folders and names: usable, or refused in one line."""

import os
from pathlib import Path

import pytest
from trial_repository import TrialRepository

from repro import run_stage
from repro.errors import UserError
from repro.surroundings import check_folder, check_name, set_matplotlib_folder
from stages.params import PROJECT


def test_matplotlib_keeps_its_files_in_the_repository(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MPLCONFIGDIR")
    set_matplotlib_folder()
    assert os.environ["MPLCONFIGDIR"] == str(trial.folder / ".cache/matplotlib")
    monkeypatch.delenv("MPLCONFIGDIR")


@pytest.mark.parametrize("path", ["/home/ada/gpt", "/a b&'\"$[x];~(y)/-o", "/100% sure", "/%4x"])
def test_a_folder_that_dvc_takes_is_not_mentioned(path: str) -> None:
    assert check_folder(Path(path), copied=False) is None
    assert check_folder(Path(path), copied=True) is None


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/a%20b", "lose results here (%20); rename it"),
        ("/what?", "fail here (?); rename it"),
        ("/c#", "fail here (#); rename it"),
        ("/Jürgen", "dvc cache dir --local"),
        ("/Ju\u0308rgen", "dvc cache dir --local"),
    ],
)
def test_a_folder_in_which_dvc_has_no_copies_is_named(path: str, words: str) -> None:
    note = check_folder(Path(path), copied=False)
    assert note is not None and note.startswith(f"{Path(path)}: ") and words in note


def test_a_run_that_dvc_would_lose_is_refused() -> None:
    with pytest.raises(UserError, match="would lose this experiment, since %41"):
        check_folder(Path("/%41"), copied=True)
    with pytest.raises(UserError, match="DVC fails in a folder with"):
        check_folder(Path("/{x}"), copied=False)


def test_an_experiment_called_as_the_working_folder_is_refused() -> None:
    check_name(None)
    check_name("workspaces")
    with pytest.raises(UserError, match="choose another name"):
        check_name("workspace")


def test_the_first_stage_alone_names_an_odd_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = TrialRepository(tmp_path / "Jürgen")
    monkeypatch.chdir(trial.folder)
    trial.set(tracking="false")
    for stage in ("prepare", "tokenize"):
        run_stage.main(PROJECT, stage, lambda params, run: None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: {trial.folder}: ")


def test_an_experiment_called_workspace_ends_in_one_line(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "workspace")
    with pytest.raises(SystemExit) as end:
        run_stage.main(PROJECT, "train", lambda params, run: pytest.fail("it began"))
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--name workspace" in line
