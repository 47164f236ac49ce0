"""Scores: every token once, with the context it was promised, and the same as one at a time."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax

from gpt.config import ModelConfig
from gpt.device import Device
from gpt.errors import DataError
from gpt.model import GPT
from gpt.scoring import Window, bits_per_byte, block_windows, half_block_windows, token_losses
from gpt.tokenizer import ByteTokenizer, CharTokenizer

CPU = Device(name="cpu", dtype="float32", threads=1, cpu_capability="any", torch="any")
BOTH = [half_block_windows, block_windows]
SMALL = [(count, block_size) for count in range(2, 40) for block_size in range(1, 14)]
Cut = Callable[[int, int], list[Window]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(*, block_size: int = 8, vocab_size: int = 11, init_std: float = 0.3) -> GPT:
    shape = ModelConfig(
        n_layer=2, n_head=2, n_embd=16, block_size=block_size, init_std=init_std, dropout=0.3
    )
    return GPT(shape, vocab_size, seed=3)


def losses_of(model: GPT, ids: np.ndarray, windows: list[Window], batch_tokens: int) -> np.ndarray:
    (losses,) = token_losses(model, ids, [windows], CPU, batch_tokens=batch_tokens)
    return losses


def random_ids(count: int, vocab_size: int = 11) -> np.ndarray:
    return np.random.default_rng(0).integers(vocab_size, size=count).astype(np.uint16)


def scored_targets(windows: list[Window]) -> list[int]:
    """The positions of the targets that count, in order: a window's targets are one further."""
    return [at for w in windows for at in range(w.stop - w.scored + 1, w.stop + 1)]


# --- windows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", BOTH)
def test_every_target_is_scored_exactly_once(cut: Cut) -> None:
    for count, block_size in SMALL:
        assert scored_targets(cut(count, block_size)) == list(range(1, count)), (count, block_size)


@pytest.mark.parametrize("cut", BOTH)
def test_a_window_lies_in_the_split_and_is_at_most_a_block(cut: Cut) -> None:
    for count, block_size in SMALL:
        for window in cut(count, block_size):
            assert 0 <= window.start < window.stop <= count - 1, (count, block_size)
            assert 0 < window.scored <= window.stop - window.start <= block_size


def test_half_a_block_of_context_stands_before_a_token_where_so_much_text_does() -> None:
    for count, block_size in SMALL:
        for window in half_block_windows(count, block_size):
            for target in range(window.stop - window.scored + 1, window.stop + 1):
                context = target - window.start
                assert context >= min(target, math.ceil(block_size / 2)), (count, block_size)


def test_windows_are_as_few_as_half_a_block_of_context_allows() -> None:
    assert half_block_windows(17, 8) == [Window(0, 8, 8), Window(4, 12, 4), Window(8, 16, 4)]
    assert half_block_windows(16, 8)[-1] == Window(7, 15, 3)


def test_blocks_lie_side_by_side_and_the_last_may_be_shorter() -> None:
    assert block_windows(20, 8) == [Window(0, 8, 8), Window(8, 16, 8), Window(16, 19, 3)]


# --- losses ---------------------------------------------------------------------------------------


def one_at_a_time(model: GPT, ids: np.ndarray, windows: list[Window]) -> list[float]:
    """-log P of each target, each from a pass of its own over the context it is given."""
    losses = []
    with torch.no_grad():
        for window in windows:
            for target in range(window.stop - window.scored + 1, window.stop + 1):
                context = torch.from_numpy(ids[window.start : target].astype(np.int64))
                log_shares = log_softmax(model.eval()(context[None])[0, -1], dim=-1)
                losses.append(-float(log_shares[int(ids[target])]))
    return losses


@pytest.mark.parametrize("cut", BOTH)
@pytest.mark.parametrize("count", [2, 5, 9, 10, 37])
@pytest.mark.parametrize("batch_tokens", [1, 24, 10_000])
def test_losses_are_those_of_one_token_at_a_time(cut: Cut, count: int, batch_tokens: int) -> None:
    model, ids = make(), random_ids(count)
    windows = cut(count, 8)
    found = losses_of(model, ids, windows, batch_tokens)
    assert found.shape == (count - 1,)
    # float32; sums of a batch and of a single row may round differently.
    assert found == pytest.approx(one_at_a_time(model, ids, windows), abs=2e-5)


def test_more_context_gives_other_losses() -> None:
    model, ids = make(), random_ids(30)
    losses = [losses_of(model, ids, cut(30, 8), 64) for cut in BOTH]
    assert losses[0][:8] == pytest.approx(losses[1][:8], abs=1e-5)
    assert abs(losses[0][8] - losses[1][8]) > 1e-2


@pytest.mark.parametrize("cut", BOTH)
def test_a_model_that_only_guesses_loses_the_logarithm_of_the_vocabulary(cut: Cut) -> None:
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    losses = losses_of(model, random_ids(30), cut(30, 8), 64)
    assert losses == pytest.approx([math.log(11)] * 29, rel=1e-6)


@pytest.mark.parametrize("block_size", [1, 2, 7, 8])
def test_two_ways_together_give_what_each_gives_alone(block_size: int) -> None:
    model, ids = make(), random_ids(45)
    ways = [cut(45, block_size) for cut in BOTH]
    together = token_losses(model, ids, ways, CPU, batch_tokens=24)
    for found, windows in zip(together, ways, strict=True):
        assert found == pytest.approx(losses_of(model, ids, windows, 1), abs=2e-5)


def test_windows_in_common_go_through_the_model_once() -> None:
    model = make()
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].numel()))
    told: list[int] = []
    ways = [cut(65, 8) for cut in BOTH]
    token_losses(model, random_ids(65), ways, CPU, batch_tokens=16, progress=told.append)
    assert sizes == told
    assert sum(told) == 8 * len(ways[0])  # and none for the blocks, all of which are among these
    assert max(sizes) == 16


@pytest.mark.parametrize("most", [1, 7, 8, 30])
def test_at_most_so_many_tokens_go_through_the_model_at_once(most: int) -> None:
    model = make()
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].numel()))
    losses_of(model, random_ids(100), half_block_windows(100, 8), most)
    assert max(sizes) == max(8, most // 8 * 8)


@pytest.mark.parametrize("count", [0, 1])
def test_a_split_without_a_target_is_refused(count: int) -> None:
    with pytest.raises(DataError, match=f"a split of {count} tokens cannot be scored"):
        token_losses(make(), random_ids(count), [[]], CPU, batch_tokens=64)


# --- bits per byte --------------------------------------------------------------------------------


def test_bits_per_byte_count_the_bytes_and_not_the_characters() -> None:
    text = "aé€😀aa"
    tokenizer = CharTokenizer("".join(sorted(set(text))), has_bos=False)
    losses = np.full(5, 3 * math.log(2))  # three bits a character
    found = bits_per_byte(losses, tokenizer.encode(text), tokenizer.token_bytes())
    assert found == pytest.approx(5 * 3 / len("é€😀aa".encode()), rel=1e-12)


def test_a_bos_costs_bits_and_stands_for_no_byte() -> None:
    tokenizer = ByteTokenizer(has_bos=True)
    ids = np.array([256, 97, 98, 256], dtype=np.uint16)
    losses = np.array([1.0, 2.0, 3.0]) * math.log(2)
    assert bits_per_byte(losses, ids, tokenizer.token_bytes()) == pytest.approx(3.0, rel=1e-12)


def test_bits_per_byte_are_the_same_for_characters_and_bytes_that_cost_the_same() -> None:
    text = "aé€😀"
    byte, char = ByteTokenizer(has_bos=False), CharTokenizer("aé€😀", has_bos=False)
    sizes = char.token_bytes()
    by_byte = bits_per_byte(np.full(9, math.log(2)), byte.encode(text), byte.token_bytes())
    by_char = bits_per_byte(sizes[1:] * math.log(2), char.encode(text), sizes)
    assert by_byte == pytest.approx(by_char, rel=1e-12) == 1.0
