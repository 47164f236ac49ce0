"""Scores: every token once, with the context it was promised, and the same as one at a time."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax

from gpt.config import ModelConfig
from gpt.device import Device
from gpt.errors import DataError
from gpt.evaluation.scoring import (
    TokenScores,
    Window,
    bits_per_byte,
    bits_per_byte_interval,
    block_windows,
    calibration,
    crop_losses,
    expected_calibration_error,
    half_block_windows,
    loss_by_class,
    loss_by_position,
    random_crops,
    token_scores,
)
from gpt.model import GPT
from gpt.tokenizers.base import ByteTokenizer, CharTokenizer

CPU = Device(name="cpu", dtype="float32", threads=1, cpu_capability="any", torch="any")
BOTH = [half_block_windows, block_windows]
SMALL = [(count, block_size) for count in range(2, 40) for block_size in range(1, 14)]
Cut = Callable[[int, int], list[Window]]


pytestmark = pytest.mark.usefixtures("one_thread")


def make(*, block_size: int = 8, vocab_size: int = 11, init_std: float = 0.3) -> GPT:
    shape = ModelConfig(
        n_layer=2, n_head=2, n_embd=16, block_size=block_size, init_std=init_std, dropout=0.3
    )
    return GPT(shape, vocab_size, seed=3)


def losses_of(model: GPT, ids: np.ndarray, windows: list[Window], batch_tokens: int) -> np.ndarray:
    (found,) = token_scores(model, ids, [windows], CPU, batch_tokens=batch_tokens)
    return found.losses


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
    together = token_scores(model, ids, ways, CPU, batch_tokens=24)
    for found, windows in zip(together, ways, strict=True):
        assert found.losses == pytest.approx(losses_of(model, ids, windows, 1), abs=2e-5)


def test_windows_in_common_go_through_the_model_once() -> None:
    model = make()
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].numel()))
    told: list[int] = []
    ways = [cut(65, 8) for cut in BOTH]
    token_scores(model, random_ids(65), ways, CPU, batch_tokens=16, progress=told.append)
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
        token_scores(make(), random_ids(count), [[]], CPU, batch_tokens=64)


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


# --- random crops ---------------------------------------------------------------------------------


def test_crops_are_drawn_from_the_whole_split_and_lie_in_it() -> None:
    crops = random_crops(20, 8, 2000)
    assert {start for start, _ in crops} == set(range(12))
    assert all(stop - start == 8 for start, stop in crops)
    assert random_crops(5, 8, 3) == [(0, 4)] * 3


def test_the_loss_of_a_crop_is_the_mean_over_its_block() -> None:
    model, ids = make(), random_ids(40)
    crops = [(3, 11), (20, 28), (3, 11)]
    expected = [
        np.mean(one_at_a_time(model, ids, [Window(start, stop, stop - start)]))
        for start, stop in crops
    ]
    found = crop_losses(model, ids, crops, CPU, batch_tokens=16)
    assert found == pytest.approx(expected, abs=2e-5)


# --- interval -------------------------------------------------------------------------------------


def texts_of_correlated_losses(seed: int, memory: float, count: int = 20_000) -> np.ndarray:
    """An autoregressive series of mean 1."""
    noise = np.random.default_rng(seed).normal(size=count)
    series = np.empty(count)
    value = 0.0
    for i, step in enumerate(noise):
        value = memory * value + step * math.sqrt(1 - memory**2)
        series[i] = 1 + 0.5 * value
    return series


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_the_interval_holds_the_true_figure_about_19_times_in_20(memory: float) -> None:
    ids, one_byte = np.zeros(20_001, np.uint16), np.ones(1, np.int64)
    held = 0
    for seed in range(40):
        losses = texts_of_correlated_losses(seed, memory) * math.log(2)
        low, high = bits_per_byte_interval(losses, ids, one_byte)
        held += low <= 1 <= high
    assert 34 <= held < 40


def test_the_interval_of_losses_that_hang_together_is_wider() -> None:
    ids, one_byte = np.zeros(20_001, np.uint16), np.ones(1, np.int64)
    widths = []
    for memory in (0.0, 0.9):
        losses = texts_of_correlated_losses(0, memory)
        low, high = bits_per_byte_interval(losses, ids, one_byte)
        widths.append(high - low)
    # By sqrt((1 + 0.9) / (1 - 0.9)) = 4.4 for an endless stretch.
    assert 3 < widths[1] / widths[0] < 6


# --- calibration ----------------------------------------------------------------------------------


def scores_of(confidence: list[float], correct: list[bool]) -> TokenScores:
    return TokenScores(np.zeros(len(correct)), np.array(confidence), np.array(correct))


def test_confidence_and_correctness_are_those_of_the_likeliest_token() -> None:
    model, ids = make(), random_ids(20)
    (found,) = token_scores(model, ids, [block_windows(20, 8)], CPU, batch_tokens=64)
    with torch.no_grad():
        shares = model.eval()(torch.from_numpy(ids[8:16].astype(np.int64))[None])[0].softmax(-1)
    assert found.confidence[8:16] == pytest.approx(shares.max(-1).values.numpy(), abs=1e-5)
    assert (found.correct[8:16] == (shares.argmax(-1).numpy() == ids[9:17])).all()


def test_a_model_that_is_right_as_often_as_it_says_has_no_calibration_error() -> None:
    bins = calibration(scores_of([0.75] * 4 + [0.25] * 4, [True] * 3 + [False] * 4 + [True]))
    assert bins == [
        {"confidence": 0.25, "accuracy": 0.25, "share": 0.5},
        {"confidence": 0.75, "accuracy": 0.75, "share": 0.5},
    ]
    assert expected_calibration_error(bins) == 0


def test_the_calibration_error_is_the_mean_distance_of_confidence_from_accuracy() -> None:
    # Sure and always wrong on a quarter, and half right at 0.6 on the rest.
    bins = calibration(scores_of([1.0] * 2 + [0.6] * 6, [False] * 2 + [True, False] * 3))
    assert expected_calibration_error(bins) == pytest.approx(0.25 * 1 + 0.75 * 0.1)


# --- by position and by class ---------------------------------------------------------------------


def test_losses_by_position_are_means_over_blocks() -> None:
    losses = np.array([4.0, 2.0, 1.0, 6.0, 2.0, 3.0, 5.0])
    assert loss_by_position(losses, 3).tolist() == [5.0, 2.0, 2.0]


def test_losses_by_class_are_means_over_what_the_target_is() -> None:
    text = "aB, b\n7a"
    tokenizer = CharTokenizer("".join(sorted(set(text))), has_bos=True)
    ids = np.append(tokenizer.encode(text), tokenizer.bos)
    found = loss_by_class(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]), ids, tokenizer)
    losses = {name: facts["loss"] for name, facts in found.items()}
    assert losses == {
        "capital": 1, "punctuation": 2, "space": 3, "letter": 5.5, "line_break": 5, "digit": 6,
        "end_of_document": 8,
    }  # fmt: skip
    assert found["letter"]["share"] == 2 / 8
