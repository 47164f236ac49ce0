"""Text of an n-gram model, to stand beside a model's: what counting alone can write."""

from collections.abc import Sequence

import numpy as np
import torch

from gpt.evaluation.baselines import MAX_ORDER, NgramModel
from gpt.generation import Sampling, encode_prompt, sample_next
from gpt.tokenizers.base import Tokenizer
from gpt.types import Ids


def ngram_texts(
    train: Ids, tokenizer: Tokenizer, prompt: str, sampling: Sampling, indices: Sequence[int]
) -> list[str]:
    """Continuations of `prompt` by the n-gram model of the highest order, sampled as a model's are.

    A text depends on its index alone, and ends where its document does.
    """
    model = NgramModel(train, tokenizer.vocab_size, MAX_ORDER)
    texts = []
    for index in indices:
        ids = encode_prompt(tokenizer, prompt)
        start = len(ids)
        for uniform in np.random.default_rng(index).random((sampling.max_new_tokens, 1)):
            probabilities_v = model.probabilities(ids[1 - MAX_ORDER :])
            logits_bv = torch.from_numpy(np.log(probabilities_v))[None]
            token = int(sample_next(logits_bv, sampling, uniform))
            if token == tokenizer.bos:
                break
            ids.append(token)
        texts.append(tokenizer.decode(ids[start:]))
    return texts
