"""What names an execution: the dvc that runs the stages, whatever lies between."""

import sys
from types import SimpleNamespace

import psutil
import pytest

from repro.tracking import tags

DVC = 7


def process(pid: int, name: str, executable: str) -> SimpleNamespace:
    return SimpleNamespace(
        pid=pid, name=lambda: name, exe=lambda: executable, create_time=lambda: 1.5
    )


# From the stage upwards, as `dvc repro` starts `cmd: python -m stages.train`.
PARENTS = {
    "linux": [process(1, "sh", "/bin/sh"), process(DVC, "dvc", "/env/bin/python")],
    "win32": [
        process(1, "python.exe", "env-python"),
        process(2, "cmd.exe", "cmd"),
        process(DVC, "python.exe", "python"),
        process(3, "dvc.exe", "dvc"),
    ],
}


@pytest.mark.parametrize("platform", PARENTS)
def test_the_stages_of_one_dvc_are_one_execution(
    platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(sys, "executable", "env-python")
    here = SimpleNamespace(parents=lambda: PARENTS[platform])
    monkeypatch.setattr(psutil, "Process", lambda: here)
    assert tags.execution_id() == f"{DVC}-1.50"
