"""What only running a submission's model can tell: its candidates, and its score.

The text that is scored is this repository's. No number that a submission states takes part. Our
model runs here, and a model's own code in a process with limits (commands/limited.py), as
`python -m commands.model_run REQUEST`.
"""

import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from pydantic import Field, ValidationError

from commands.limited import run_limited
from gpt.checkpoint import TrainedModel, load_model, read_run_config
from gpt.config import OUR_SOURCE, Config
from gpt.corpus.manifest import split_entry
from gpt.decoding.canonical import canonical, one_thread
from gpt.errors import GptError, SubmissionError
from gpt.evaluation.scoring import Scorer, bits_per_byte, half_block_windows
from gpt.files import write_json
from gpt.generation import Sampling, generate
from gpt.model_source import count_parameters
from gpt.tokenizers.encoding import encode_shard, shard_jobs

BATCH_TOKENS = 16_384
# A model that has not seen the text codes it in fewer bits than the grammar that wrote it by 100
# bits once in 2^100.
LUCK_BITS = 100
LIMIT_SECONDS = 3600


class Decoding(Config):
    """How the candidates were generated. The limits keep a stranger's file from taking hours."""

    prompt: str = Field(max_length=100_000)
    max_new_tokens: int = Field(ge=0, le=10_000)
    temperature: float = Field(ge=0.0)
    top_k: int = Field(ge=0)
    top_p: float = Field(gt=0.0, le=1.0)
    stop: str | None = Field(max_length=1000)
    seed: int = Field(ge=0, lt=2**63)


class ModelRun(Config):
    """What a model did. The score is None where no text was given."""

    parameters: int
    candidates: list[str]
    bits_per_byte: float | None


class Request(Config):
    """A model folder, the file with the model's own code, and what to do: all paths absolute."""

    model: str
    code: str
    decoding: Decoding
    count: int
    corpus: str | None
    result: str


def run_model(trained: TrainedModel, decoding: Decoding, count: int, text: Path | None) -> ModelRun:
    """Generates candidates, and scores the validation text of the corpus in `text`."""
    model = trained.run_config.model
    if model.source != OUR_SOURCE:
        _check_causal(trained)
    return ModelRun(
        parameters=count_parameters(trained.model),
        candidates=generate_candidates(trained, decoding, count),
        bits_per_byte=None if text is None else score(trained, text),
    )


def run_own_code(
    folder: Path, code: Path, decoding: Decoding, count: int, text: Path | None
) -> ModelRun:
    """`run_model` for the model in `folder` that is made by the file `code`, in its own process.

    What comes back is as honest as that code. Raises SubmissionError.
    """
    with tempfile.TemporaryDirectory() as name:
        result = Path(name) / "result.json"
        request = Request(
            model=str(folder.resolve()),
            code=str(code.resolve()),
            decoding=decoding,
            count=count,
            corpus=None if text is None else str(text.resolve()),
            result=str(result),
        )
        write_json(Path(name) / "request.json", request.model_dump())
        run_limited(
            "commands.model_run",
            str(Path(name) / "request.json"),
            folder=Path(name),
            environment={"PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
            seconds=LIMIT_SECONDS,
        )
        try:
            run = ModelRun.model_validate_json(result.read_bytes())
        except (OSError, ValidationError):
            raise SubmissionError(f"{code}: ended without a result") from None
        if len(run.candidates) != count:
            raise SubmissionError(f"{code}: ended without all candidates")
        return run


def _main(request: Request) -> None:
    folder = Path(request.model)
    source = read_run_config(folder / "config.json").model.source
    trained = load_model(folder, source, Path(request.code))
    corpus = None if request.corpus is None else Path(request.corpus)
    result = run_model(trained, request.decoding, request.count, corpus)
    write_json(Path(request.result), result.model_dump())


@torch.inference_mode()
def _check_causal(trained: TrainedModel) -> None:
    """Raises SubmissionError where a logit depends on later tokens: then no loss means anything."""
    model, t = trained.model, min(trained.run_config.model.block_size, 64)
    generator = torch.Generator().manual_seed(0)
    ids_bt = torch.randint(trained.tokenizer.vocab_size, (2, t), generator=generator)
    ids_bt[1, : t // 2] = ids_bt[0, : t // 2]
    logits_btv = model(ids_bt.to(trained.device.name))[:, : t // 2]
    if not torch.allclose(logits_btv[0], logits_btv[1], rtol=1e-4, atol=1e-4):
        source = trained.run_config.model.source
        raise SubmissionError(f"{source}: its logits depend on later tokens, so it has no score")


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


def score(trained: TrainedModel, corpus: Path) -> float:
    """Bits per byte of the validation text in `corpus`, as the stage `evaluate` counts them.

    Raises SubmissionError for a score below the information that the text is known to hold.
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
            f"its model codes the validation text in {bits:.0f} bits, and it holds "
            f"{information:.0f}; only a model that was trained on it can"
        )
    return round(bits_per_byte(scores.losses, ids, tokenizer.token_bytes()), 6)


if __name__ == "__main__":
    try:
        _main(Request.model_validate_json(Path(sys.argv[1]).read_bytes()))
    except GptError as error:
        sys.exit(str(error))
