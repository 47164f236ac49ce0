"""What the owner of a GPU sends: `python -m gpt.device`."""

import re
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest
import torch
from pretended_mps import pretended_mps

from gpt import device_report
from gpt import model as model_module
from gpt.presets import resolve


@pytest.fixture(autouse=True)
def _warnings_as_before() -> Iterator[None]:
    yield
    torch.set_warn_always(False)


@pytest.mark.slow
def test_here_it_prints_versions_the_device_losses_and_no_warning() -> None:
    command = [sys.executable, "-m", "gpt.device"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert re.match(r"repro-gpt on .*, Python 3\.", lines[0])
    assert re.match(rf"torch {re.escape(torch.__version__)}, device (cpu|cuda|mps): ", lines[1])
    assert [line.split()[0] for line in lines[2:]] == [
        *("float32", "bfloat16", "generation", "warning")
    ]
    assert lines[-1].endswith("none")


def report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[bool, list[str]]:
    """Whether it failed on a pretended GPU of Apple, and its lines."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "get_name", lambda: "Apple M9")
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 12_000_000_000)
    monkeypatch.setattr(device_report, "UPDATES", 2)
    monkeypatch.setattr(device_report, "TOKENS", 2)
    narrow = resolve("quick", {"n_layer": 1, "n_embd": 16, "block_size": 8}, {"eval_tokens": 8})
    monkeypatch.setattr(device_report, "resolve", lambda *_: narrow)
    with pytest.raises(SystemExit) as ended, pretended_mps(), warnings.catch_warnings():
        device_report.main()
    return bool(ended.value.code), capsys.readouterr().out.splitlines()


def test_a_gpu_is_compared_with_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed, lines = report(monkeypatch, capsys)
    assert not failed
    assert "device mps: Apple M9, " in lines[1]
    assert "of it for the GPU 12.0 GB" in lines[1]
    differences = re.findall(r"\(difference ([+-]\S+)\)|at most (\S+) from", "\n".join(lines))
    assert len(differences) == 3
    assert all(abs(float(a or b)) < 0.01 for a, b in differences)


def test_what_fails_and_what_falls_back_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu":
            warnings.warn("aten::a falls\nback", stacklevel=1)
            raise NotImplementedError("no aten::b\nhere")
        return x

    monkeypatch.setattr(model_module, "rms_norm", fails)
    failed, lines = report(monkeypatch, capsys)
    assert failed
    for line in lines[2:5]:
        assert line.endswith(" NotImplementedError: no aten::b")
    assert lines[5:] == ["warning     aten::a falls"]
