"""Which device computes, with what threads; and what running out of its memory says."""

import pytest
import torch

from gpt.config import ModelConfig, TrainConfig
from gpt.device import choose_device, out_of_memory_explained
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
    ],
    ids=["python", "cuda", "cpu"],
)
def test_out_of_memory_says_what_to_lower_and_keeps_the_cause(error: Exception) -> None:
    with (
        pytest.raises(TrainingError, match=r"train\.batch_size = 12; halve it") as raised,
        out_of_memory_explained(MODEL, TRAIN),
    ):
        raise error
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: an illegal memory access was encountered",
        "more than one element of the written-to tensor refers to a single memory location",
    ],
)
def test_a_bug_that_mentions_memory_stays_a_bug(message: str) -> None:
    with pytest.raises(RuntimeError, match=message), out_of_memory_explained(MODEL, TRAIN):
        raise RuntimeError(message)
