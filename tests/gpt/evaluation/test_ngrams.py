"""The ladder's n-gram models, against the formula written out and texts whose entropy is known."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from gpt.evaluation.ngrams import DISCOUNT, kneser_ney_losses


def by_definition(train: list[int], vocab_size: int, context: list[int], token: int) -> float:
    """p(token | context) of interpolated Kneser-Ney, from the definition, with dictionaries."""

    def grams(n: int) -> Counter[tuple[int, ...]]:
        return Counter(tuple(train[i : i + n]) for i in range(len(train) - n + 1))

    def share(history: tuple[int, ...], highest: bool) -> float:
        n = len(history) + 1
        counts = grams(n) if highest else Counter(longer[1:] for longer in grams(n + 1))
        times = Counter(counts.values())
        discount = DISCOUNT
        if times[1] and times[2]:
            discount = times[1] / (times[1] + 2 * times[2])
        following = {gram[-1]: count for gram, count in counts.items() if gram[:-1] == history}
        below = share(history[1:], False) if history else 1 / vocab_size
        if not following:
            return below
        total = sum(following.values())
        seen = max(following.get(token, 0) - discount, 0) / total
        return seen + discount * len(following) / total * below

    return share(tuple(context), True)


@pytest.mark.parametrize("vocab_size", [3, 7])
def test_losses_are_those_of_the_definition(vocab_size: int) -> None:
    draw = np.random.default_rng(vocab_size)
    # Uneven, so that some n-grams come once, some twice and some never.
    train = (draw.integers(vocab_size, size=90) * draw.integers(2, size=90)).astype(np.uint16)
    scored = draw.integers(vocab_size, size=25).astype(np.uint16)
    for n, losses in enumerate(kneser_ney_losses(train, scored, vocab_size, orders=4), start=1):
        for at in range(1, len(scored)):
            context = scored[max(0, at - n + 1) : at].tolist()
            expected = by_definition(train.tolist(), vocab_size, context, int(scored[at]))
            assert losses[at - 1] == pytest.approx(-math.log(expected), rel=1e-9), (n, at)


def test_probabilities_of_all_tokens_sum_to_one() -> None:
    draw = np.random.default_rng(1)
    train = draw.integers(5, size=200).astype(np.uint16)
    context = train[40:43]
    sums: dict[int, float] = defaultdict(float)
    for token in range(5):
        scored = np.append(context, np.uint16(token))
        for n, losses in enumerate(kneser_ney_losses(train, scored, 5, orders=4), start=1):
            sums[n] += math.exp(-losses[-1])
    assert list(sums.values()) == pytest.approx([1.0] * 4, rel=1e-12)


def test_the_entropies_of_a_hand_made_text_are_found() -> None:
    # After a always b, then c or d, each as often, then a again: shares of 1/3, 1/3, 1/6 and 1/6,
    # and a bit to be learned at every third letter by who knows the one before.
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
    alone = kneser_ney_losses(train, np.array([2, 1, 0], np.uint16), 3, orders=3)
    assert alone[2][0] == alone[1][0]  # the second token has one predecessor, not two


def test_a_large_vocabulary_does_not_overflow() -> None:
    draw = np.random.default_rng(3)
    ids = draw.integers(50_257, size=3_000).astype(np.uint16)
    losses = kneser_ney_losses(ids[:2500], ids[2500:], 50_257)
    assert all(np.isfinite(order).all() for order in losses)
    assert losses[-1].mean() > 9
