"""Text of the n-gram model: what it may write, and that it depends on its index alone."""

import numpy as np

from gpt.evaluation.ngram_text import ngram_texts
from gpt.generation import Sampling
from gpt.tokenizers.char import CharTokenizer

TOKENIZER = CharTokenizer(list("abc "), has_bos=True)


def training_ids() -> np.ndarray:
    documents = ["ab c"] * 20
    bos = TOKENIZER.bos
    return np.concatenate([np.append(bos, TOKENIZER.encode(text)) for text in documents] + [[bos]])


def test_the_most_likely_text_is_the_training_text_and_ends_where_that_does() -> None:
    greedy = Sampling(100, temperature=0)
    assert ngram_texts(training_ids(), TOKENIZER, "", greedy, [0]) == ["ab c"]
    assert ngram_texts(training_ids(), TOKENIZER, "ab", greedy, [0]) == [" c"]


def test_a_text_depends_on_its_index_alone() -> None:
    free = Sampling(30, temperature=3.0)
    texts = ngram_texts(training_ids(), TOKENIZER, "", free, [0, 1, 2])
    assert ngram_texts(training_ids(), TOKENIZER, "", free, [2, 0]) == [texts[2], texts[0]]
    assert len(set(texts)) == 3
