"""How a stage ends: its exit code and its one line."""

import errno
import io
import runpy
import signal
import sys
from pathlib import Path

import pytest
from trial_repository import STAGES, TrialRepository

from gpt.config import ModelConfig
from gpt.errors import DataError, ParamsError
from gpt.model_source import make_model
from repro import run_stage, signals, surroundings
from repro.errors import Interrupted, UserError
from repro.tracking.run import Run
from stages.params import PROJECT, Params, load

RESTORE = "to restore the last result: git checkout HEAD params.yaml && dvc repro"


SHAPE = {"n_layer": 1, "n_head": 1, "n_embd": 4, "block_size": 4}
MINE = ModelConfig(source="scratchpad/model.py", **SHAPE)


def ended(trial: TrialRepository, error: BaseException) -> int | str | None:
    def body(params: Params, run: Run) -> None:
        raise error

    trial.set(tracking="false")
    with pytest.raises(SystemExit) as end:
        run_stage.main(PROJECT, "train", body)
    return end.value.code


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("a.txt: empty; choose another"), 2, f"a.txt: empty; choose another; {RESTORE}"),
        (UserError("not a repository."), 2, f"not a repository. {RESTORE}"),
        (
            OSError(errno.ENOSPC, "No space left on device", "data/x"),
            2,
            "data/x: no space left on device; free disk space and run the same command; " + RESTORE,
        ),
        (Interrupted("stopped by SIGTERM after step 3"), 75, "stopped by SIGTERM after step 3"),
        (KeyboardInterrupt(), 130, f"interrupted; {RESTORE}"),
    ],
)
def test_what_is_no_bug_ends_in_one_line_with_its_code(
    trial: TrialRepository,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str,
) -> None:
    assert ended(trial, error) == code
    assert capsys.readouterr().err == f"train: {line}\n"


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(errno.ENOENT, "a bug", "x")])
def test_a_bug_keeps_its_traceback(trial: TrialRepository, error: Exception) -> None:
    with pytest.raises(type(error), match="a bug"):
        ended(trial, error)


def test_faults_of_params_end_the_stage_before_it_begins(
    trial: TrialRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    trial.set(preset="huge")
    with pytest.raises(SystemExit) as end:
        run_stage.main(PROJECT, "train", lambda params, run: pytest.fail("it began"))
    assert end.value.code == 2
    assert "preset" in capsys.readouterr().err


# --- how it is called -----------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_help_prints_what_the_stage_does_and_runs_nothing(
    trial: TrialRepository,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
) -> None:
    monkeypatch.setattr(sys, "argv", [stage, "--help"])
    monkeypatch.delitem(sys.modules, f"stages.{stage}", raising=False)
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
    assert end.value.code == 0
    assert f"python -m stages.{stage}" in capsys.readouterr().out.replace("\n", " ")
    assert not Path("metrics").exists()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("argument", ["--foo", "foo"])
def test_an_argument_that_a_stage_does_not_have_is_refused_in_one_line(
    trial: TrialRepository,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    argument: str,
) -> None:
    monkeypatch.setattr(sys, "argv", [stage, argument])
    monkeypatch.delitem(sys.modules, f"stages.{stage}", raising=False)
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{stage}: {argument}: a stage takes no options")
    assert not Path("metrics").exists()


def test_a_stage_in_another_folder_names_the_right_one_and_no_git_command(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, expected in (
        (trial.folder / "data", f"has no dvc.yaml; change to {trial.folder}"),
        (trial.folder.parent, "not inside a DVC repository; change to the folder with dvc.yaml"),
    ):
        monkeypatch.chdir(folder)
        with pytest.raises(SystemExit) as end:
            run_stage.main(PROJECT, "train", lambda params, run: pytest.fail("it began"))
        assert (end.value.code, capsys.readouterr().err) == (2, f"train: {folder}: {expected}\n")


def test_what_to_do_about_missing_params_works_where_it_is_said(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("params.yaml").unlink()
    with pytest.raises(ParamsError, match=r"not found; restore it: git checkout HEAD params\.yaml"):
        load()
    monkeypatch.chdir("data")
    with pytest.raises(ParamsError, match=r"params\.yaml: not found; change to the folder with"):
        load()


@pytest.mark.parametrize(
    "ending", ["sys.exit(0)", "exit()", "import argparse; argparse.ArgumentParser().error('no')"]
)
def test_a_learners_file_that_ends_the_program_is_named_with_its_line(
    trial: TrialRepository, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    trial.set(tracking="false")
    trial.write("scratchpad/model.py", f"import sys\n\n{ending}\n")
    with pytest.raises(SystemExit) as end:
        run_stage.main(PROJECT, "train", lambda params, run: make_model(MINE, 65))
    assert end.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"scratchpad/model.py:3: {ending}: it ends the program; remove it; to restore" in line


def test_any_character_can_be_printed_into_a_file_on_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="cp1252"))
    surroundings.print_utf8()
    print("✗ Ωμέγα", flush=True)
    assert shown.getvalue().decode() == "✗ Ωμέγα\n"


@pytest.mark.skipif(not hasattr(signal, "SIGQUIT"), reason="stands for SIGBREAK")
def test_ctrl_break_asks_a_stage_to_stop_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals.sys, "platform", "win32")
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGQUIT, raising=False)
    before = signal.getsignal(signal.SIGQUIT)
    with signals.stop_signals() as stop:
        signal.raise_signal(signal.SIGQUIT)
    assert stop == ["stopped by SIGQUIT"]
    assert signal.getsignal(signal.SIGQUIT) == before
