"""Stage `sample`: generates text with the trained model.  python -m stages.sample

Reads data/model, data/tokens (to see what of the text is new) and the params `sample`. Writes
data/samples, metrics/samples.md and metrics/sample.json. To print other text: gpt sample.
"""

import csv
import json
from itertools import cycle
from typing import Any

import numpy as np
from tqdm import tqdm

from gpt.batches import document_starts, open_tokens
from gpt.checkpoint import TrainedModel, load_model
from gpt.evaluation.ngram_text import ngram_texts
from gpt.evaluation.novelty import MAX_SEARCHED_TOKENS, novelty_metrics
from gpt.files import rounded, write_json
from gpt.generation import Sample, Sampling, generate, printable
from repro import run_stage
from repro.tracking.run import Run
from stages import params as project
from stages.params import Params, SampleParams
from verse.metrics import RULES, count_rules


def sample(params: Params, run: Run) -> None:
    settings = params.sample
    trained = load_model(project.MODEL, params.model_source)
    trained.device.apply()
    params.check_prompt(trained.tokenizer.encode)
    fields = settings.model_dump(include=set(Sampling.__dataclass_fields__))
    with tqdm(desc="sample", unit="char", disable=None) as bar:

        def advance(index: int, text: str) -> None:
            bar.update(len(text))

        samples = generate(
            trained.model,
            trained.tokenizer,
            settings.read_prompt(),
            Sampling(**fields),
            seed=settings.seed,
            indices=range(settings.num_samples),
            on_text=advance,
        )
    project.SAMPLES.parent.mkdir(parents=True, exist_ok=True)
    with project.SAMPLES.open("w", encoding="utf-8", newline="\n") as file:
        for index, result in enumerate(samples):
            line = {"sample": index, "seed": settings.seed, **vars(result)}
            file.write(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n")
    project.SAMPLES_PAGE.parent.mkdir(parents=True, exist_ok=True)
    project.SAMPLES_PAGE.write_bytes(samples_page(settings, samples).encode())
    metrics = sample_metrics(trained, samples)
    if trained.run_config.data["corpus"] == "verse":
        metrics["verse"] = score_rules(trained, samples, Sampling(**fields))
    write_json(project.SAMPLE_METRICS, metrics)
    print(f"{project.SAMPLES_PAGE}: {len(samples)} texts; gpt result prints the first")


def samples_page(settings: SampleParams, samples: list[Sample]) -> str:
    """metrics/samples.md: the settings, and the texts in fences that no text can close."""
    dials = f"temperature {settings.temperature}, top_k {settings.top_k}, top_p {settings.top_p}"
    chapters = [f"# Samples\n\n{dials}, seed {settings.seed}\n"]
    for index, result in enumerate(samples):
        text, fence = result.text, "```"
        while fence in text:
            fence += "`"
        title = f"## {index} ({result.stop_reason})"
        chapters.append(f"{title}\n\n{fence}\n{printable(text)}\n{fence}\n")
    return "\n".join(chapters)


def sample_metrics(trained: TrainedModel, samples: list[Sample]) -> dict[str, Any]:
    """Counts, and what of the text is new."""
    texts = [result.text[len(result.prompt) :] for result in samples]
    lines = [line for text in texts for line in text.split("\n") if line]
    size, vocab_size = sum(map(len, texts)), trained.run_config.vocab_size
    train_ids, val_ids = (
        open_tokens(project.TOKENS, split, vocab_size) for split in ("train", "val")
    )
    train_text = trained.tokenizer.decode(train_ids[-MAX_SEARCHED_TOKENS:])
    # A character is at most as many tokens as it has bytes.
    val_text = trained.tokenizer.decode(val_ids[: 4 * size])[:size]
    return {
        "samples": len(samples),
        "characters": sum(len(result.text) for result in samples),
        "line_length": rounded(sum(map(len, lines)) / len(lines)) if lines else None,
        "novelty": novelty_metrics(texts, train_text, val_text),
    }


def score_rules(
    trained: TrainedModel, samples: list[Sample], sampling: Sampling
) -> dict[str, float | None]:
    """The fraction of cases in which the samples keep each rule of a play.

    Writes data/samples/rules.csv: beside them held-out text of the same length, the beginnings of
    plays, and what the best n-gram model writes.
    """
    tokenizer, vocab_size = trained.tokenizer, trained.run_config.vocab_size
    texts = [result.text[len(result.prompt) :] for result in samples]
    train_ids, val_ids = (
        open_tokens(project.TOKENS, split, vocab_size)[:MAX_SEARCHED_TOKENS]
        for split in ("train", "val")
    )
    starts = document_starts(val_ids, vocab_size if tokenizer.bos is None else tokenizer.bos)
    plays = [tokenizer.decode(ids) for ids in np.split(val_ids, starts[1:])]
    held_out = [play[: len(text)] for play, text in zip(cycle(plays), texts, strict=False)]
    by_counting = ngram_texts(train_ids, tokenizer, samples[0].prompt, sampling, range(len(texts)))
    counts = {
        name: count_rules(each)
        for name, each in (("samples", texts), ("held_out", held_out), ("ngram", by_counting))
    }
    with project.RULES.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["rule", "text", "kept", "cases"])
        for rule in RULES:
            writer.writerows(
                [rule, name, c.kept[rule], c.cases[rule]] for name, c in counts.items()
            )
    return counts["samples"].fractions()


if __name__ == "__main__":
    run_stage.main(project.PROJECT, "sample", sample)
