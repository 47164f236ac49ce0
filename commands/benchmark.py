"""`gpt benchmark`: scores a trained model on public benchmarks."""

import json
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import typer
from tqdm import tqdm

from commands.root import ModelFolder, at_root
from gpt.checkpoint import load_model
from gpt.corpus.downloads import Download, fetch
from gpt.errors import ParamsError
from gpt.evaluation import benchmarks
from gpt.files import sha256_of
from repro import repository
from stages.params import MIRROR, MODEL, load

QUESTIONS = {
    "hellaswag": (benchmarks.read_hellaswag, benchmarks.score_hellaswag),
    "lambada": (benchmarks.read_lambada, benchmarks.score_lambada),
}
# As the authors publish them, with the sha256 that other projects pin too. The Penn Treebank is not
# free to download.
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

app = typer.Typer(add_completion=False)
Task = Literal["hellaswag", "lambada", "wikitext-2", "wikitext-103", "ptb", "enwik8", "text8"]


@app.command("benchmark")
def run_benchmark(
    task: Annotated[Task, typer.Argument(help="The benchmark.")],
    file: Annotated[
        Path | None,
        typer.Argument(help="Its file, as published; without it: downloaded.", resolve_path=True),
    ] = None,
    model: ModelFolder = None,
    limit: Annotated[int, typer.Option(help="Only the first LIMIT questions; 0: all.")] = 0,
) -> None:
    """Score the model on a benchmark, as JSON: docs/scale.md has GPT-2's scores."""
    with at_root():
        params = load()
        file = file or _published(task)
        trained = load_model(model or MODEL, params.model_source)
        trained.device.apply()
        with tqdm(desc=task, disable=None) as bar:
            if task in QUESTIONS:
                read, score = QUESTIONS[task]
                scores = score(trained, islice(read(file), limit or None), bar.update)
            else:
                text = benchmarks.read_text(file, task)
                batch_tokens = params.evaluate.batch_tokens
                scores = benchmarks.score_text(trained, task, text, batch_tokens, bar.update)
        # A score belongs to one file, so the file is named by its bytes.
        source = {"task": task, "file_sha256": sha256_of(file)}
        rounded = {name: round(value, 6) for name, value in scores.items()}
        print(json.dumps(source | rounded, indent=2))


def _published(task: str) -> Path:
    """The file of FILES, from GPT_MIRROR, the cache or the network."""
    if task not in FILES:
        raise ParamsError(
            f"{task} is not free to download; name its file: gpt benchmark {task} FILE"
        )
    with tqdm(desc="download", unit="B", unit_scale=True, disable=None) as bar:
        cache = repository.scratch() / "benchmarks"
        return fetch(FILES[task], cache, repository.location(MIRROR), bar.update)
