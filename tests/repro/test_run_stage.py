"""How a stage ends: its exit code and its one line."""

import errno
import io
import signal
import sys

import pytest
from trial_repository import TrialRepository

from gpt.errors import DataError
from repro import run_stage, signals, surroundings
from repro.errors import Interrupted, UserError
from repro.tracking.run import Run
from stages.params import PROJECT, Params

RESTORE = "to restore the last result: git checkout HEAD params.yaml && dvc repro"


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
