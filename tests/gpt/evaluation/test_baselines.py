"""Baselines, against the formula written out, texts of known entropy, and gzip and xz."""

import math
import shutil
import subprocess
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from conftest import missing

from gpt.evaluation.baselines import (
    DISCOUNT,
    NgramModel,
    baseline_bits_per_byte,
    best_ngram,
    kneser_ney_losses,
)
from gpt.tokenizers.char import CharTokenizer
from verse.play import write_play


def by_definition(train: list[int], vocab_size: int, context: list[int], token: int) -> float:
    """p(token | context) of interpolated Kneser-Ney, from the definition, with dictionaries."""

    def grams(n: int) -> Counter[tuple[int, ...]]:
        return Counter(tuple(train[i : i + n]) for i in range(len(train) - n + 1))

    def probability(history: tuple[int, ...], highest: bool) -> float:
        n = len(history) + 1
        counts = grams(n) if highest else Counter(longer[1:] for longer in grams(n + 1))
        times = Counter(counts.values())
        discount = DISCOUNT
        if times[1] and times[2]:
            discount = times[1] / (times[1] + 2 * times[2])
        following = {gram[-1]: count for gram, count in counts.items() if gram[:-1] == history}
        lower = probability(history[1:], False) if history else 1 / vocab_size
        if not following:
            return lower
        total = sum(following.values())
        seen = max(following.get(token, 0) - discount, 0) / total
        return seen + discount * len(following) / total * lower

    return probability(tuple(context), True)


@pytest.mark.parametrize("vocab_size", [3, 7])
def test_losses_are_those_of_the_definition(vocab_size: int) -> None:
    rng = np.random.default_rng(vocab_size)
    # Uneven, so that some n-grams occur once, some twice and some never.
    train = (rng.integers(vocab_size, size=90) * rng.integers(2, size=90)).astype(np.uint16)
    scored = rng.integers(vocab_size, size=25).astype(np.uint16)
    for n, losses in enumerate(kneser_ney_losses(train, scored, vocab_size, max_order=4), start=1):
        for position in range(1, len(scored)):
            context = scored[max(0, position - n + 1) : position].tolist()
            expected = by_definition(train.tolist(), vocab_size, context, int(scored[position]))
            assert losses[position - 1] == pytest.approx(-math.log(expected), rel=1e-9), (
                n,
                position,
            )


@pytest.mark.parametrize("order", [1, 2, 4])
def test_probabilities_of_all_tokens_are_those_of_the_losses(order: int) -> None:
    rng = np.random.default_rng(order)
    train = (rng.integers(6, size=90) * rng.integers(2, size=90)).astype(np.uint16)
    scored = rng.integers(7, size=40).astype(np.uint16)  # the last token never occurs in train
    losses = kneser_ney_losses(train, scored, 7, order)[-1]
    model = NgramModel(train, 7, order)
    for position in range(1, len(scored)):
        probabilities = model.probabilities(scored[:position].tolist())
        assert probabilities.sum() == pytest.approx(1)
        assert -math.log(probabilities[scored[position]]) == pytest.approx(losses[position - 1])


def test_probabilities_of_all_tokens_sum_to_one() -> None:
    rng = np.random.default_rng(1)
    train = rng.integers(5, size=200).astype(np.uint16)
    context = train[40:43]
    sums: dict[int, float] = defaultdict(float)
    for token in range(5):
        scored = np.append(context, np.uint16(token))
        for n, losses in enumerate(kneser_ney_losses(train, scored, 5, max_order=4), start=1):
            sums[n] += math.exp(-losses[-1])
    assert list(sums.values()) == pytest.approx([1.0] * 4, rel=1e-12)


def test_the_entropies_of_a_hand_made_text_are_found() -> None:
    # b follows a, then c or d with equal probability, then a: frequencies of 1/3, 1/3, 1/6 and 1/6,
    # and given the letter before, one bit at every third letter.
    rng = np.random.default_rng(2)
    last = rng.integers(2, 4, size=20_000)
    text = np.stack([np.zeros_like(last), np.ones_like(last), last], axis=1).ravel()
    train, scored = text[:45_000].astype(np.uint16), text[45_000:].astype(np.uint16)
    unigram, bigram, *_ = (
        float(losses.mean()) / math.log(2) for losses in kneser_ney_losses(train, scored, 4)
    )
    assert unigram == pytest.approx(2 / 3 * math.log2(3) + 1 / 3 * math.log2(6), abs=0.005)
    assert bigram == pytest.approx(1 / 3, abs=0.005)


def test_no_ngram_reaches_from_the_training_text_into_the_scored_one() -> None:
    train = np.array([0, 1, 0, 1, 0, 1, 0, 1], np.uint16)
    alone = kneser_ney_losses(train, np.array([2, 1, 0], np.uint16), 3, max_order=3)
    assert alone[2][0] == alone[1][0]  # the second token has one predecessor, not two


def test_a_large_vocabulary_does_not_overflow() -> None:
    rng = np.random.default_rng(3)
    ids = rng.integers(50_257, size=3_000).astype(np.uint16)
    losses = kneser_ney_losses(ids[:2500], ids[2500:], 50_257)
    assert all(np.isfinite(order).all() for order in losses)
    assert losses[-1].mean() > 9


# --- all baselines --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def play() -> str:
    return write_play(seed=0, index=0).text


@pytest.fixture(scope="module")
def baselines(play: str) -> dict[str, float]:
    """Counted in the first half of a play, scored on the second."""
    tokenizer = CharTokenizer("".join(sorted(set(play))), has_bos=False)
    ids = tokenizer.encode(play)
    return baseline_bits_per_byte(ids[: len(ids) // 2], ids[len(ids) // 2 :], tokenizer)


@pytest.mark.parametrize("program", ["gzip", "xz"])
def test_compressed_sizes_are_those_of_the_command_line(
    tmp_path: Path, play: str, baselines: dict[str, float], program: str
) -> None:
    if shutil.which(program) is None:
        missing(f"{program} is not installed")
    text = play[len(play) // 2 :].encode()
    (tmp_path / "text").write_bytes(text)
    command = [program, "-9", "-c", str(tmp_path / "text")]
    compressed = subprocess.run(command, capture_output=True, check=True).stdout
    # GNU gzip and zlib, and two versions of xz, differ by some bytes; gzip adds the file's name.
    assert baselines[program] == pytest.approx(8 * len(compressed) / len(text), rel=0.01)


def test_baselines_improve_with_the_context_they_see(
    play: str, baselines: dict[str, float]
) -> None:
    assert baselines["uniform"] == pytest.approx(math.log2(len(set(play))))
    assert baselines["uniform"] > baselines["ngram_1"] > baselines["ngram_2"] > baselines["ngram_3"]
    assert baselines["ngram_3"] < baselines["xz"]
    assert baselines[best_ngram(baselines)] == min(baselines[f"ngram_{n}"] for n in range(1, 7))


def test_only_a_limited_part_of_a_large_corpus_is_read(
    monkeypatch: pytest.MonkeyPatch, play: str
) -> None:
    tokenizer = CharTokenizer("".join(sorted(set(play))), has_bos=False)
    ids = tokenizer.encode(play)
    train, scored = ids[2000:4000], ids[4000:6000]
    expected = baseline_bits_per_byte(train, scored, tokenizer)
    limits = {"TRAIN_TOKENS": 2000, "SCORED_TOKENS": 2000, "COMPRESSED_BYTES": 2000}
    for name, limit in limits.items():
        monkeypatch.setattr(f"gpt.evaluation.baselines.MAX_{name}", limit)
    limited = baseline_bits_per_byte(ids[:4000], ids[4000:], tokenizer)
    assert limited == expected
