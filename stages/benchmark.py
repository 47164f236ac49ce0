"""`gpt benchmark`: a trained model on the tests that others publish figures of."""

import math
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from gpt import zeroshot
from gpt.checkpoint import TrainedModel, load_model
from gpt.scoring import half_block_windows, token_scores
from stages.params import load

QUESTIONS = {
    "hellaswag": (zeroshot.read_hellaswag, zeroshot.answers),
    "lambada": (zeroshot.read_lambada, zeroshot.last_words),
}


def run(task: str, file: Path, model: Path, limit: int) -> dict[str, float | str]:
    """The figures of `task`, of which `file` holds the questions or the text."""
    params = load()
    trained = load_model(model, params.model_source)
    # disable=None: quiet where the output is not a terminal.
    with tqdm(desc=task, disable=None) as bar:

        def progress(done: int) -> None:
            bar.update(done)

        if task in QUESTIONS:
            read, score = QUESTIONS[task]
            found = score(trained, islice(read(file), limit or None), progress)
        else:
            text = zeroshot.read_text(file, task)
            found = text_figures(trained, task, text, params.evaluate.batch_tokens, progress)
    return {"task": task, **{name: round(value, 6) for name, value in found.items()}}


def text_figures(
    trained: TrainedModel, task: str, text: str, batch_tokens: int, progress: zeroshot.Progress
) -> dict[str, float]:
    """wikitext: perplexity of a word as published; enwik8, text8: bits of a byte as published."""
    wikitext = task == "wikitext"
    units = len(text.split()) + text.count("\n") if wikitext else len(text.encode())
    ids = trained.tokenizer.encode(zeroshot.as_written(text) if wikitext else text)
    windows = half_block_windows(len(ids), trained.model.config.block_size) if len(ids) > 1 else []
    (scores,) = token_scores(
        trained.model,
        ids,
        [windows],
        trained.device,
        batch_tokens=batch_tokens,
        progress=progress,
    )
    total = float(scores.losses.sum())
    if wikitext:
        return {"words": units, "tokens": len(ids), "perplexity": math.exp(total / units)}
    return {"bytes": units, "tokens": len(ids), "bits_per_byte": total / math.log(2) / units}
