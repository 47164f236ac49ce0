"""Which of two lines is more likely, against the sum of log-probabilities written out."""

import pytest
import torch

from gpt.config import ModelConfig
from gpt.device import choose_device
from gpt.evaluation.minimal_pairs import prefers_right, writable
from gpt.evaluation.scoring import Scorer
from gpt.generation import encode_prompt
from gpt.model import GPT
from gpt.tokenizers.char import CharTokenizer

TOKENIZER = CharTokenizer(list("\n abcd"), has_bos=True)
PAIRS = [
    ("", "ab\n", "ba\n"),
    ("ab ", "c\n", "dddd\n"),
    ("abcd abcd abcd\n", "abc d\n", "abd\n"),  # longer than the block
    ("d\n", "aaaaaaaaaaaaaaaaaa\n", "b\n"),  # a line longer than the block
]


@pytest.fixture
def scorer() -> Scorer:
    config = ModelConfig(n_layer=1, n_head=2, n_embd=8, block_size=12)
    model = GPT(config, TOKENIZER.vocab_size, seed=3)
    torch.nn.init.normal_(model.token_embedding.weight, generator=torch.Generator().manual_seed(0))
    return Scorer(model, choose_device("cpu"), batch_tokens=16)


def test_the_line_with_the_greater_log_probability_is_preferred(scorer: Scorer) -> None:
    swapped = [(context, wrong, right) for context, right, wrong in PAIRS]
    expected = []
    for context, *lines in PAIRS:
        longer = max(map(len, lines))
        right, wrong = (log_probability(scorer.model, context, line, longer) for line in lines)
        expected.append(right > wrong)
    assert prefers_right(scorer, TOKENIZER, PAIRS) == expected
    assert [not verdict for verdict in prefers_right(scorer, TOKENIZER, swapped)] == prefers_right(
        scorer, TOKENIZER, PAIRS
    )


def test_equal_lines_are_not_preferred(scorer: Scorer) -> None:
    assert prefers_right(scorer, TOKENIZER, [("ab ", "c\n", "c\n")]) == [False]


def log_probability(model: GPT, context: str, line: str, longer: int) -> float:
    """Of the line's tokens, as many as are predicted within one block beside `longer` tokens."""
    line_ids, max_ids = TOKENIZER.encode(line).tolist(), model.config.block_size + 1
    context_ids = encode_prompt(TOKENIZER, context)
    while context_ids and len(context_ids) + longer > max_ids:
        context_ids = context_ids[1:]
    ids = (context_ids + line_ids)[-max_ids:]
    with torch.no_grad():
        log_probs_tv = model(torch.tensor([ids[:-1]]))[0].log_softmax(-1)
    scored = range(max(1, len(ids) - len(line_ids)), len(ids))
    return sum(float(log_probs_tv[position - 1, ids[position]]) for position in scored)


def test_texts_with_unknown_characters_are_told_apart() -> None:
    assert writable(TOKENIZER, ["ab", "xb", "", "a\n", "é"]) == [True, False, True, True, False]
