"""Scores: every token once, with the stated context, and the same as one token at a time."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax

from gpt.config import ModelConfig
from gpt.device import Device
from gpt.errors import DataError
from gpt.evaluation.scoring import (
    Scorer,
    TokenScores,
    Window,
    bits_per_byte,
    block_windows,
    calibration_curve,
    expected_calibration_error,
    half_block_windows,
    loss_by_class,
    loss_by_position,
    random_crops,
)
from gpt.model import GPT
from gpt.presets import resolve
from gpt.tokenizers.byte_level import ByteTokenizer
from gpt.tokenizers.char import CharTokenizer

CPU = Device(name="cpu", dtype="float32", threads=1, cpu_capability="any", torch="any")
WINDOWINGS = [half_block_windows, block_windows]
SMALL = [(count, block_size) for count in range(2, 40) for block_size in range(1, 14)]
Cut = Callable[[int, int], list[Window]]


pytestmark = pytest.mark.usefixtures("one_thread")


def make(*, block_size: int = 8, vocab_size: int = 11, init_std: float = 0.3) -> GPT:
    shape = ModelConfig(
        n_layer=2, n_head=2, n_embd=16, block_size=block_size, init_std=init_std, dropout=0.3
    )
    return GPT(shape, vocab_size, seed=3)


def losses_of(model: GPT, ids: np.ndarray, windows: list[Window], batch_tokens: int) -> np.ndarray:
    (scores,) = Scorer(model, CPU, batch_tokens).token_scores(ids, [windows])
    return scores.losses


def random_ids(count: int, vocab_size: int = 11) -> np.ndarray:
    return np.random.default_rng(0).integers(vocab_size, size=count).astype(np.uint16)


def scored_targets(windows: list[Window]) -> list[int]:
    """The positions of the targets that count, in order: a window's targets are one further."""
    return [target for w in windows for target in range(w.stop - w.scored + 1, w.stop + 1)]


# --- windows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", WINDOWINGS)
def test_every_target_is_scored_exactly_once(cut: Cut) -> None:
    for count, block_size in SMALL:
        assert scored_targets(cut(count, block_size)) == list(range(1, count)), (count, block_size)


@pytest.mark.parametrize("cut", WINDOWINGS)
def test_a_window_lies_in_the_split_and_is_at_most_a_block(cut: Cut) -> None:
    for count, block_size in SMALL:
        for window in cut(count, block_size):
            assert 0 <= window.start < window.stop <= count - 1, (count, block_size)
            assert 0 < window.scored <= window.stop - window.start <= block_size


def test_a_token_has_half_a_block_of_context_or_all_the_text_before_it() -> None:
    for count, block_size in SMALL:
        for window in half_block_windows(count, block_size):
            for target in range(window.stop - window.scored + 1, window.stop + 1):
                context = target - window.start
                assert context >= min(target, math.ceil(block_size / 2)), (count, block_size)


def test_windows_are_as_few_as_half_a_block_of_context_allows() -> None:
    assert half_block_windows(17, 8) == [Window(0, 8, 8), Window(4, 12, 4), Window(8, 16, 4)]
    assert half_block_windows(16, 8)[-1] == Window(7, 15, 3)


def test_blocks_are_disjoint_and_the_last_may_be_shorter() -> None:
    assert block_windows(20, 8) == [Window(0, 8, 8), Window(8, 16, 8), Window(16, 19, 3)]


# --- losses ---------------------------------------------------------------------------------------


def one_at_a_time(model: GPT, ids: np.ndarray, windows: list[Window]) -> list[float]:
    """-log P of each target, each from a pass of its own over the context it is given."""
    losses = []
    with torch.no_grad():
        for window in windows:
            for target in range(window.stop - window.scored + 1, window.stop + 1):
                context = torch.from_numpy(ids[window.start : target].astype(np.int64))
                log_probs = log_softmax(model.eval()(context[None])[0, -1], dim=-1)
                losses.append(-float(log_probs[int(ids[target])]))
    return losses


@pytest.mark.parametrize("cut", WINDOWINGS)
@pytest.mark.parametrize("count", [2, 5, 9, 10, 37])
@pytest.mark.parametrize("batch_tokens", [1, 24, 10_000])
def test_losses_are_those_of_one_token_at_a_time(cut: Cut, count: int, batch_tokens: int) -> None:
    model, ids = make(), random_ids(count)
    windows = cut(count, 8)
    losses = losses_of(model, ids, windows, batch_tokens)
    assert losses.shape == (count - 1,)
    # float32: sums over a batch and over a single sequence may round differently.
    assert losses == pytest.approx(one_at_a_time(model, ids, windows), abs=2e-5)


def test_more_context_gives_other_losses() -> None:
    model, ids = make(), random_ids(30)
    losses = [losses_of(model, ids, cut(30, 8), 64) for cut in WINDOWINGS]
    assert losses[0][:8] == pytest.approx(losses[1][:8], abs=1e-5)
    assert abs(losses[0][8] - losses[1][8]) > 1e-2


@pytest.mark.parametrize("cut", WINDOWINGS)
def test_a_uniform_model_has_the_logarithm_of_the_vocabulary_as_its_loss(cut: Cut) -> None:
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    losses = losses_of(model, random_ids(30), cut(30, 8), 64)
    assert losses == pytest.approx([math.log(11)] * 29, rel=1e-6)


@pytest.mark.parametrize("block_size", [1, 2, 7, 8])
def test_two_windowings_at_once_give_what_each_gives_alone(block_size: int) -> None:
    model, ids = make(), random_ids(45)
    windowings = [cut(45, block_size) for cut in WINDOWINGS]
    combined = Scorer(model, CPU, 24).token_scores(ids, windowings)
    for scores, windows in zip(combined, windowings, strict=True):
        assert scores.losses == pytest.approx(losses_of(model, ids, windows, 1), abs=2e-5)


def test_shared_windows_go_through_the_model_once() -> None:
    model = make()
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].numel()))
    reported: list[int] = []
    windowings = [cut(65, 8) for cut in WINDOWINGS]
    Scorer(model, CPU, 16, reported.append).token_scores(random_ids(65), windowings)
    assert sizes == reported
    assert sum(reported) == 8 * len(windowings[0])  # every block is one of the half-block windows
    assert max(sizes) == 16


@pytest.mark.parametrize("batch_tokens", [1, 7, 8, 30])
def test_at_most_batch_tokens_or_one_window_go_through_the_model_at_once(batch_tokens: int) -> None:
    model = make()
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].numel()))
    losses_of(model, random_ids(100), half_block_windows(100, 8), batch_tokens)
    assert max(sizes) == max(8, batch_tokens // 8 * 8)


@pytest.mark.parametrize("count", [0, 1])
def test_a_split_without_a_target_is_refused(count: int) -> None:
    with pytest.raises(DataError, match=f"a split of {count} tokens cannot be scored"):
        Scorer(make(), CPU, 64).token_scores(random_ids(count), [[]])


def test_a_model_whose_loss_is_nan_is_refused() -> None:
    model = make()
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(DataError, match="the model's loss is NaN"):
        losses_of(model, random_ids(20), block_windows(20, 8), 64)


def test_log_probabilities_in_chunks_are_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = make(), random_ids(40)
    at_once = Scorer(model, CPU, 64).token_scores(ids, [block_windows(40, 8)])[0]
    monkeypatch.setattr("gpt.evaluation.scoring.LOG_PROBS_AT_ONCE", 3 * 11)
    chunked = Scorer(model, CPU, 64).token_scores(ids, [block_windows(40, 8)])[0]
    assert np.array_equal(at_once.losses, chunked.losses)
    assert np.array_equal(at_once.confidence, chunked.confidence)
    assert np.array_equal(at_once.correct, chunked.correct)


# --- bits per byte --------------------------------------------------------------------------------


def test_bits_per_byte_count_the_bytes_and_not_the_characters() -> None:
    text = "aé€😀aa"
    tokenizer = CharTokenizer("".join(sorted(set(text))), has_bos=False)
    losses = np.full(5, 3 * math.log(2))  # three bits per character
    bits = bits_per_byte(losses, tokenizer.encode(text), tokenizer.token_bytes())
    assert bits == pytest.approx(5 * 3 / len("é€😀aa".encode()), rel=1e-12)


def test_a_bos_costs_bits_and_has_no_bytes() -> None:
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


def test_crops_start_anywhere_in_the_split_and_end_in_it() -> None:
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
    losses = Scorer(model, CPU, 16).crop_losses(ids, crops)
    assert losses == pytest.approx(expected, abs=2e-5)


# --- calibration ----------------------------------------------------------------------------------


def scores_of(confidence: list[float], correct: list[bool]) -> TokenScores:
    return TokenScores(np.zeros(len(correct)), np.array(confidence), np.array(correct))


def test_confidence_and_correctness_are_those_of_the_most_likely_token() -> None:
    model, ids = make(), random_ids(20)
    (scores,) = Scorer(model, CPU, 64).token_scores(ids, [block_windows(20, 8)])
    with torch.no_grad():
        probabilities = model.eval()(torch.from_numpy(ids[8:16].astype(np.int64))[None])[0].softmax(
            -1
        )
    assert scores.confidence[8:16] == pytest.approx(probabilities.max(-1).values.numpy(), abs=1e-5)
    assert (scores.correct[8:16] == (probabilities.argmax(-1).numpy() == ids[9:17])).all()


def test_a_calibrated_model_has_no_calibration_error() -> None:
    curve = calibration_curve(scores_of([0.75] * 4 + [0.25] * 4, [True] * 3 + [False] * 4 + [True]))
    assert curve == [
        {"confidence": 0.25, "accuracy": 0.25, "share": 0.5},
        {"confidence": 0.75, "accuracy": 0.75, "share": 0.5},
    ]
    assert expected_calibration_error(curve) == 0


def test_the_calibration_error_is_the_mean_distance_of_confidence_from_accuracy() -> None:
    # Confidence 1 and always wrong on a quarter, confidence 0.6 and half right on the rest.
    curve = calibration_curve(scores_of([1.0] * 2 + [0.6] * 6, [False] * 2 + [True, False] * 3))
    assert expected_calibration_error(curve) == pytest.approx(0.25 * 1 + 0.75 * 0.1)


# --- by position and by class ---------------------------------------------------------------------


def test_losses_by_position_are_means_over_blocks() -> None:
    losses = np.array([4.0, 2.0, 1.0, 6.0, 2.0, 3.0, 5.0])
    assert loss_by_position(losses, 3).tolist() == [5.0, 2.0, 2.0]


def test_losses_by_class_are_means_over_the_class_of_the_target() -> None:
    text = "aB, b\n7a"
    tokenizer = CharTokenizer("".join(sorted(set(text))), has_bos=True)
    ids = np.append(tokenizer.encode(text), tokenizer.bos)
    classes = loss_by_class(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]), ids, tokenizer)
    losses = {name: stats["loss"] for name, stats in classes.items()}
    assert losses == {
        "capital": 1, "punctuation": 2, "space": 3, "letter": 5.5, "line_break": 5, "digit": 6,
        "end_of_document": 8,
    }  # fmt: skip
    assert classes["letter"]["share"] == 2 / 8


def test_bytes_of_a_letter_are_no_punctuation() -> None:
    tokenizer = ByteTokenizer(has_bos=False)
    classes = loss_by_class(np.ones(6), tokenizer.encode("aäöb!"), tokenizer)
    shares = {name: round(6 * stats["share"]) for name, stats in classes.items()}
    assert shares == {"part_of_character": 4, "letter": 1, "punctuation": 1}


# --- Hugging Face's GPT-2 -------------------------------------------------------------------------


def as_hugging_face(model: GPT) -> torch.nn.Module:
    """The same weights in Hugging Face's GPT2LMHeadModel; its linear layers are transposed."""
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = model.config
    reference = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=model.vocab_size,
            n_positions=shape.block_size,
            n_embd=shape.n_embd,
            n_layer=shape.n_layer,
            n_head=shape.n_head,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()
    ours = model.state_dict()
    names = {"token_embedding": "wte", "position_embedding": "wpe", "norm": "ln_f"}
    for layer in range(shape.n_layer):
        for our_name, their_name in (
            ("norm_1", "ln_1"),
            ("attention.qkv", "attn.c_attn"),
            ("attention.proj", "attn.c_proj"),
            ("norm_2", "ln_2"),
            ("mlp.up", "mlp.c_fc"),
            ("mlp.down", "mlp.c_proj"),
        ):
            names[f"blocks.{layer}.{our_name}"] = f"h.{layer}.{their_name}"
    theirs = reference.transformer.state_dict()
    for our_name, their_name in names.items():
        weight = ours[f"{our_name}.weight"]
        theirs[f"{their_name}.weight"].copy_(weight.T if ".c_" in their_name else weight)
        if f"{their_name}.bias" in theirs:
            bias = ours.get(f"{our_name}.bias")
            theirs[f"{their_name}.bias"].copy_(torch.zeros(()) if bias is None else bias)
    assert ours.keys() <= {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}
    return reference


@pytest.mark.slow
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.filterwarnings("ignore")  # warnings of their package
def test_the_loss_is_that_of_hugging_faces_gpt2(bias: bool) -> None:
    pytest.importorskip("transformers", exc_type=ImportError)
    shape, _, _ = resolve("nanogpt-cpu", {"dropout": 0.0, "bias": bias, "init_std": 0.1}, {})
    assert isinstance(shape, ModelConfig)
    vocab_size = 65
    ids = random_ids(64 + 32 * 30 + 1, vocab_size)
    model = GPT(shape, vocab_size, seed=5)
    with torch.no_grad():
        noise = torch.Generator().manual_seed(1)
        for parameter in model.parameters():  # biases and gains too
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=noise))
    windows = half_block_windows(len(ids), shape.block_size)
    (scores,) = Scorer(model, CPU, 4096).token_scores(ids, [windows])

    reference, losses = as_hugging_face(model), []
    block_size, half = shape.block_size, shape.block_size // 2
    tokens = torch.from_numpy(ids.astype(np.int64))
    for stop in range(block_size, len(ids), half):
        inputs, targets = tokens[stop - block_size : stop], tokens[stop - block_size + 1 : stop + 1]
        with torch.no_grad():
            logits = reference(inputs[None]).logits[0]
        new = slice(0 if stop == block_size else half, None)
        losses.append(cross_entropy(logits[new], targets[new], reduction="none"))
    expected = torch.cat(losses)
    assert len(expected) == len(ids) - 1
    assert float(scores.losses.mean()) == pytest.approx(float(expected.mean()), abs=1e-5)
    assert scores.losses == pytest.approx(expected.numpy(), abs=1e-3)
    assert float(expected.mean()) > math.log(vocab_size)  # so the model is not uniform
