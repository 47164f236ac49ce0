"""What is copied is found, what is new is new, and a model that memorised is told as one."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from gpt.config import ModelConfig
from gpt.evaluation.novelty import (
    NgramIndex,
    distinct,
    longest_shared_run,
    new_ngrams,
    pair_positions,
    rouge_2,
    rouge_2_among,
    rouge_2_nearest,
    words_of,
)
from gpt.generation import Sampling, generate
from gpt.model import GPT
from gpt.tokenizers.char import CharTokenizer

TRAIN = "Thou art more lovely and more temperate: rough winds do shake the darling buds of May."


def random_text(seed: int, size: int, alphabet: str = "abc é😀") -> str:
    return "".join(np.random.default_rng(seed).choice(list(alphabet), size=size))


def longest_by_trying(texts: list[str], train: str) -> int:
    runs = {text[i:j] for text in texts for i in range(len(text)) for j in range(i, len(text) + 1)}
    return max(len(run) for run in runs if run in train)


@pytest.mark.parametrize("seed", range(5))
def test_the_longest_run_is_that_of_trying_them_all(seed: int) -> None:
    train = random_text(seed, 400)
    texts = [random_text(seed + 100, 60), train[50:60] + random_text(seed + 200, 30)]
    run = longest_shared_run(NgramIndex(texts), NgramIndex([train]))
    assert run in train
    assert any(run in text for text in texts)
    assert len(run) == longest_by_trying(texts, train)


@pytest.mark.parametrize("length", [1, 3, 4, 16])
def test_the_share_of_new_ngrams_is_that_of_looking_for_each(length: int) -> None:
    train, texts = random_text(0, 300), [random_text(1, 80), random_text(2, 40), "a"]
    grams = [text[i : i + length] for text in texts for i in range(len(text) - length + 1)]
    expected = sum(gram not in train for gram in grams) / len(grams)
    assert new_ngrams(NgramIndex(texts), NgramIndex([train]), length) == pytest.approx(expected)


def test_a_run_across_two_texts_is_none() -> None:
    assert longest_shared_run(NgramIndex(["lovely", " and"]), NgramIndex([TRAIN])) == "lovely"
    # The end of one text is not the end of another.
    assert longest_shared_run(NgramIndex(["xMay."]), NgramIndex([TRAIN])) == "May."


def test_nothing_is_shared_with_nothing() -> None:
    assert longest_shared_run(NgramIndex(["", "xyz"]), NgramIndex(["abc"])) == ""
    assert new_ngrams(NgramIndex(["ab"]), NgramIndex([TRAIN]), 4) is None
    assert new_ngrams(NgramIndex(["abcdef"]), NgramIndex(["ab"]), 4) == 1


@pytest.mark.slow
def test_a_model_that_memorised_its_text_is_found_out() -> None:
    tokenizer = CharTokenizer("".join(sorted(set(TRAIN))), has_bos=False)
    ids = torch.from_numpy(tokenizer.encode(TRAIN).astype(np.int64))[None]
    shape = ModelConfig(n_layer=1, n_head=2, n_embd=32, block_size=128)
    model = GPT(shape, tokenizer.vocab_size, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(120):
        cross_entropy(model(ids[:, :-1]).transpose(1, 2), ids[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()
    greedy = Sampling(max_new_tokens=len(TRAIN) - 4, temperature=0)
    (copied,) = generate(model, tokenizer, "Thou", greedy, seed=0)
    train = NgramIndex([TRAIN])
    assert longest_shared_run(NgramIndex([copied.text]), train) == TRAIN
    assert new_ngrams(NgramIndex([copied.text]), train, 16) == 0
    (untrained,) = generate(GPT(shape, tokenizer.vocab_size, seed=0), tokenizer, "Thou",
                        Sampling(max_new_tokens=80), seed=0)  # fmt: skip
    assert len(longest_shared_run(NgramIndex([untrained.text]), train)) < 10
    assert new_ngrams(NgramIndex([untrained.text]), train, 16) == 1


# --- words ----------------------------------------------------------------------------------------


def test_words_are_small_letters_without_punctuation() -> None:
    assert words_of("Thou'rt\n--ÉTÉ, 2 times_x") == ["thou", "rt", "été", "2", "times", "x"]


def test_distinct_counts_different_ngrams_over_all_texts() -> None:
    texts = [["a", "b", "a", "b"], ["a", "b"]]
    assert distinct(texts, 1) == 2 / 6
    assert distinct(texts, 2) == 2 / 4
    assert distinct(texts, 5) is None


def test_rouge_2_is_the_f1_of_pairs_counted_as_often_as_both_have_them() -> None:
    assert rouge_2(["the", "cat", "sat"], ["the", "cat", "sat"]) == 1
    assert rouge_2(["the", "cat", "sat"], ["a", "dog", "ran"]) == 0
    # the cat (twice, once), cat the: 3 pairs and 2 pairs, of which 1 is in common.
    assert rouge_2(["the", "cat", "the", "cat"], ["the", "cat", "sat"]) == pytest.approx(2 * 1 / 5)
    assert rouge_2_among([["a", "b"], ["a", "b"], ["c", "d"]]) == pytest.approx(1 / 3)
    assert rouge_2_among([["a", "b"]]) is None


def test_the_nearest_passage_is_found_wherever_it_stands() -> None:
    train = words_of("so long as men can breathe or eyes can see " + TRAIN + " and every fair")
    positions = pair_positions(train)
    assert rouge_2_nearest(words_of(TRAIN), train, positions) == 1
    assert rouge_2_nearest(["eyes", "can", "see", "thou"], train, positions) == 1
    assert rouge_2_nearest(["eyes", "can", "hear", "thou"], train, positions) == pytest.approx(
        1 / 3
    )
    assert rouge_2_nearest(["zounds", "sirrah"], train, positions) == 0
    assert rouge_2_nearest(["so"], train, positions) == 0
