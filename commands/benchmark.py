"""`gpt benchmark`: a trained model on the tests that others publish figures of."""

import json
import math
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from commands.root import at_root
from gpt.checkpoint import TrainedModel, load_model
from gpt.corpus.downloads import Download, fetch
from gpt.errors import ParamsError
from gpt.evaluation import benchmarks as zeroshot
from gpt.evaluation.scoring import half_block_windows, token_scores
from gpt.files import sha256_of
from repro import repository
from stages.params import MIRROR, MODEL, load

QUESTIONS = {
    "hellaswag": (zeroshot.read_hellaswag, zeroshot.answers),
    "lambada": (zeroshot.read_lambada, zeroshot.last_words),
}
# As the authors publish them, with the sha256 that several other projects pin. The Penn Treebank is
# not free, so it has no address.
FILES = {
    "hellaswag": Download(
        "hellaswag_val.jsonl",
        "https://raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_val.jsonl",
        "0aa3b88843990f3f10a97b9575c94d7b71fb2205240ba04ae4884d9e9c992588",
    ),
    "lambada": Download(
        "lambada_test.jsonl",
        "https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl",
        "4aa8d02cd17c719165fc8a7887fddd641f43fcafa4b1c806ca8abc31fabdb226",
    ),
    "wikitext-2": Download(
        "wikitext-2-v1.zip",
        "https://wikitext.smerity.com/wikitext-2-v1.zip",
        "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c",
    ),
    "wikitext-103": Download(
        "wikitext-103-v1.zip",
        "https://wikitext.smerity.com/wikitext-103-v1.zip",
        "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590",
    ),
    "enwik8": Download(
        "enwik8.zip",
        "http://mattmahoney.net/dc/enwik8.zip",
        "547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
    ),
    "text8": Download(
        "text8.zip",
        "http://mattmahoney.net/dc/text8.zip",
        "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
    ),
}

app = typer.Typer()


class Task(StrEnum):
    """What a model can be tested on without having been trained for it."""

    hellaswag = "hellaswag"
    lambada = "lambada"
    wikitext_2 = "wikitext-2"
    wikitext_103 = "wikitext-103"
    ptb = "ptb"
    enwik8 = "enwik8"
    text8 = "text8"


def run(task: str, file: Path | None, model: Path, limit: int) -> dict[str, float | str]:
    """The figures of `task`, of which `file` holds the questions or the text.

    Without a file it is that of FILES, from GPT_MIRROR, the cache or the network. Raises
    ParamsError for a task that has none.
    """
    params = load()
    file = file or _published(task)
    trained = load_model(model, params.model_source)
    trained.device.apply()
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
    # The file is named by its bytes, since a figure is one of this file and no other.
    facts = {"task": task, "file_sha256": sha256_of(file)}
    return {**facts, **{name: round(value, 6) for name, value in found.items()}}


def _published(task: str) -> Path:
    if task not in FILES:
        raise ParamsError(
            f"{task} is not free to download; name its file: gpt benchmark {task} FILE"
        )
    with tqdm(desc="download", unit="B", unit_scale=True, disable=None) as bar:

        def came(size: int) -> None:
            bar.update(size)

        cache = repository.scratch() / "benchmarks"
        return fetch(FILES[task], cache, repository.location(MIRROR), came)


def text_figures(
    trained: TrainedModel, task: str, text: str, batch_tokens: int, progress: zeroshot.Progress
) -> dict[str, float]:
    """Perplexity of a word as published, or (enwik8, text8) bits of a byte as published."""
    of_words = task in zeroshot.OF_WORDS
    units = len(text.split()) + text.count("\n") if of_words else len(text.encode())
    ids = trained.tokenizer.encode(zeroshot.as_written(text) if of_words else text)
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
    if of_words:
        return {"words": units, "tokens": len(ids), "perplexity": math.exp(total / units)}
    return {"bytes": units, "tokens": len(ids), "bits_per_byte": total / math.log(2) / units}


@app.command("benchmark")
def run_benchmark(
    task: Annotated[Task, typer.Argument(help="Which test.")],
    file: Annotated[
        Path | None,
        typer.Argument(help="Its file, as published; else it is downloaded.", resolve_path=True),
    ] = None,
    model: Annotated[Path, typer.Option(help="A folder as the train stage writes it.")] = MODEL,
    limit: Annotated[int, typer.Option(help="Only the first LIMIT questions; 0: all.")] = 0,
) -> None:
    """Score the model on a task that it was not trained for, as JSON: docs/scale.md has GPT-2's."""
    with at_root():
        print(json.dumps(run(task.value, file, model, limit), indent=2))
