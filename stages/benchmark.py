"""`gpt benchmark`: a trained model on the tests that others publish figures of."""

from itertools import islice
from pathlib import Path

from tqdm import tqdm

from gpt import zeroshot
from gpt.checkpoint import load_model
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
            found = zeroshot.text_losses(
                trained, task, text, params.evaluate.batch_tokens, progress
            )
    return {"task": task, **{name: round(value, 6) for name, value in found.items()}}
