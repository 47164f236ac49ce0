"""Which device computes, with what threads; and what running out of its memory says."""

import warnings
from collections.abc import Iterator

import pytest
import torch

from gpt.config import ModelConfig, TrainConfig
from gpt.device import choose_device, device_errors_explained
from gpt.errors import ParamsError, TrainingError

MODEL = ModelConfig(n_layer=1, n_head=1, n_embd=16, block_size=8)
TRAIN = TrainConfig(steps=1, batch_size=12, learning_rate=1e-3, min_learning_rate=0.0)


def test_choosing_a_device_leaves_the_threads_and_apply_sets_them(one_thread: None) -> None:
    device = choose_device("cpu", "float32", threads=2)
    assert torch.get_num_threads() == 1
    device.apply()
    assert torch.get_num_threads() == 2


def test_no_number_of_threads_is_the_present_one(two_threads: None) -> None:
    assert choose_device("cpu").threads == 2


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """One without a GPU; a test gives it one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with warnings.catch_warnings():
        yield monkeypatch
    torch.set_warn_always(False)


def test_auto_is_cuda_before_mps_before_the_cpu(machine: pytest.MonkeyPatch) -> None:
    assert (choose_device().name, choose_device().dtype) == ("cpu", "float32")
    machine.setattr(torch.backends.mps, "is_available", lambda: True)
    assert (choose_device().name, choose_device().dtype) == ("mps", "float32")
    assert choose_device("mps", "bfloat16").dtype == "bfloat16"
    assert choose_device("cpu").name == "cpu"
    machine.setattr(torch.cuda, "is_available", lambda: True)
    assert (choose_device().name, choose_device().dtype) == ("cuda", "bfloat16")


def test_apples_gpu_trains_in_one_process(machine: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParamsError, match=r"train\.device = mps: .*sees no Apple GPU; use auto"):
        choose_device("mps")
    machine.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device(processes=2).name == "cpu"
    with pytest.raises(ParamsError, match=r"train\.device = mps: 2 processes .*processes=1"):
        choose_device("mps", processes=2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_autocast_of_apples_gpu_is_entered_without_a_warning(
    dtype: str, machine: pytest.MonkeyPatch
) -> None:
    machine.setattr(torch.backends.mps, "is_available", lambda: True)
    with choose_device("mps", dtype).autocast:
        assert torch.is_autocast_enabled("mps") == (dtype == "bfloat16")


def test_what_apples_gpu_leaves_to_the_cpu_is_named_once_in_a_line(
    machine: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.setattr(torch.backends.mps, "is_available", lambda: True)
    device = choose_device("mps")
    device.apply()
    device.apply()
    for name in ("aten::a.out", "aten::b", "aten::a.out"):
        message = (
            f"The operator '{name}' is not currently supported on the MPS backend and will fall "
            "back to run on the CPU. (Triggered internally at MPSFallback.mm:14.)\n  return f(x)"
        )
        warnings.warn(message, stacklevel=1)
    assert capsys.readouterr().err == "".join(
        f"warning: {name} is slow: Apple's GPU has no kernel, so the CPU computes it\n"
        for name in ("aten::a.out", "aten::b")
    )
    with pytest.raises(UserWarning, match="another"):
        warnings.warn("another", stacklevel=1)


def test_an_operator_that_apples_gpu_lacks_is_named_with_what_to_do() -> None:
    error = NotImplementedError(
        "The operator 'aten::a.out' is not currently implemented for the MPS device. If you want"
    )
    with (
        pytest.raises(
            TrainingError, match=r"no aten::a\.out for .*FALLBACK=1, or .*=cpu"
        ) as raised,
        device_errors_explained(MODEL, TRAIN),
    ):
        raise error
    assert raised.value.__cause__ is error


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_here_is_refused_with_those_that_are() -> None:
    with pytest.raises(ParamsError, match=r"train\.device = cuda:1: .*use auto or cpu"):
        choose_device("cuda:1")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, max allowed: 9.07 GB)."),
        RuntimeError("Invalid buffer size: 16.00 GB"),
    ],
    ids=["python", "cuda", "cpu", "mps", "mps, one tensor"],
)
def test_out_of_memory_says_what_to_lower_and_keeps_the_cause(error: Exception) -> None:
    with (
        pytest.raises(TrainingError, match=r"train\.batch_size = 12; halve it") as raised,
        device_errors_explained(MODEL, TRAIN),
    ):
        raise error
    assert raised.value.__cause__ is error


def test_out_of_memory_with_one_sequence_does_not_say_to_halve_it() -> None:
    smallest = TRAIN.model_copy(update={"batch_size": 1})
    with (
        pytest.raises(TrainingError, match=r"train\.batch_size = 1; lower model\.block_size"),
        device_errors_explained(MODEL, smallest),
    ):
        raise MemoryError


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: an illegal memory access was encountered",
        "more than one element of the written-to tensor refers to a single memory location",
    ],
)
def test_a_bug_that_mentions_memory_stays_a_bug(message: str) -> None:
    with pytest.raises(RuntimeError, match=message), device_errors_explained(MODEL, TRAIN):
        raise RuntimeError(message)
