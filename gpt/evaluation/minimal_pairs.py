"""Which of two lines a model finds more likely: what it knows, without sampling.

Not here: the pairs themselves (for the default corpus verse/minimal_pairs.py).
"""

from collections.abc import Sequence

import numpy as np

from gpt.errors import TokenizerError
from gpt.evaluation.scoring import Scorer
from gpt.generation import encode_prompt
from gpt.tokenizers.base import Tokenizer


def prefers_right(
    scorer: Scorer, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str, str]]
) -> list[bool]:
    """For each (context, right line, wrong line): whether the right one is more likely.

    Of a context as much is read as the block has room for beside the longer line. Raises
    TokenizerError for a character that the tokenizer does not know (see `writable`).
    """
    max_ids = scorer.model.config.block_size + 1  # the last one is predicted only
    sequences, line_tokens = [], []
    for context, right, wrong in pairs:
        lines = [tokenizer.encode(line).tolist() for line in (right, wrong)]
        context_ids = encode_prompt(tokenizer, context)
        start = max(0, len(context_ids) + max(map(len, lines)) - max_ids)
        for line in lines:
            sequences.append((context_ids[start:] + line)[-max_ids:])
            line_tokens.append(len(line))
    ends = np.cumsum([len(ids) for ids in sequences]).tolist()
    # Sequences of the same length go through the model together.
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    spans = [(ends[i] - len(sequences[i]), ends[i] - 1) for i in order]
    totals = np.empty(len(sequences))
    for i, (_, scores) in zip(
        order, scorer.score_spans(np.concatenate(sequences), spans), strict=True
    ):
        totals[i] = scores.losses[-line_tokens[i] :].sum(dtype=np.float64)
    return [bool(right < wrong) for right, wrong in totals.reshape(-1, 2)]


def writable(tokenizer: Tokenizer, texts: Sequence[str]) -> list[bool]:
    """For each text whether the tokenizer knows all its characters."""
    unknown = set()
    for character in sorted(set().union(*texts)):
        try:
            tokenizer.encode(character)
        except TokenizerError:
            unknown.add(character)
    return [unknown.isdisjoint(text) for text in texts]
