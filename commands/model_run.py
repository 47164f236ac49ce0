"""What only running a submission's model can tell: its candidates, and its score.

The text that is scored is this repository's. No number that a submission states takes part.
"""

import math
from pathlib import Path

import numpy as np
from pydantic import Field

from gpt.checkpoint import TrainedModel
from gpt.config import Config
from gpt.corpus.manifest import split_entry
from gpt.decoding.canonical import canonical, one_thread
from gpt.errors import SubmissionError
from gpt.evaluation.scoring import Scorer, bits_per_byte, half_block_windows
from gpt.generation import Sampling, generate
from gpt.tokenizers.encoding import encode_shard, shard_jobs

BATCH_TOKENS = 16_384
# A model that has not seen the text codes it in fewer bits than the grammar that wrote it by 100
# bits once in 2^100.
LUCK_BITS = 100


class Decoding(Config):
    """How the candidates were generated. The limits keep a stranger's file from taking hours."""

    prompt: str = Field(max_length=100_000)
    max_new_tokens: int = Field(ge=0, le=10_000)
    temperature: float = Field(ge=0.0)
    top_k: int = Field(ge=0)
    top_p: float = Field(gt=0.0, le=1.0)
    stop: str | None = Field(max_length=1000)
    seed: int = Field(ge=0, lt=2**63)


def generate_candidates(trained: TrainedModel, decoding: Decoding, count: int) -> list[str]:
    """The texts 0 to count - 1 of these settings, by canonical decoding."""
    settings = decoding.model_dump(exclude={"prompt", "seed"})
    with one_thread():
        samples = generate(
            canonical(trained.model),
            trained.tokenizer,
            decoding.prompt,
            Sampling(**settings),
            seed=decoding.seed,
            indices=range(count),
        )
    return [sample.text for sample in samples]


def score(trained: TrainedModel, corpus: Path, where: Path) -> float:
    """Bits per byte of the validation text in `corpus`, as the stage `evaluate` counts them.

    Raises SubmissionError, which names `where`, for a score below the information that the text is
    known to hold.
    """
    tokenizer, block_size = trained.tokenizer, trained.run_config.model.block_size
    jobs = [job for job in shard_jobs(corpus) if job.split == "val"]
    ids = np.concatenate([ids for job in jobs for ids in encode_shard(job, tokenizer)])
    scorer = Scorer(trained.model, trained.device, BATCH_TOKENS)
    (scores,) = scorer.token_scores(ids, [half_block_windows(len(ids), block_size)])
    bits = float(scores.losses.sum()) / math.log(2)
    information = split_entry(corpus / "corpus.json", "val").get("information_bits", 0.0)
    if bits + LUCK_BITS < information:
        raise SubmissionError(
            f"{where}: codes the validation text in {bits:.0f} bits, and it holds "
            f"{information:.0f}; only a model that was trained on it can"
        )
    return round(bits_per_byte(scores.losses, ids, tokenizer.token_bytes()), 6)
