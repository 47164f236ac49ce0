"""Stage `sample`: generates text with the trained model.  python -m stages.sample

Reads data/model, data/tokens (to see what of the text is new) and the params `sample`. Writes
data/samples, metrics/samples.md and metrics/sample.json. To print other text: gpt sample.
"""

import json
from typing import Any

from tqdm import tqdm

from gpt.batches import open_tokens
from gpt.checkpoint import TrainedModel, load_model
from gpt.evaluation.novelty import MAX_SEARCHED_TOKENS, novelty_metrics
from gpt.files import rounded, write_json
from gpt.generation import Sample, Sampling, generate, printable
from repro import run_stage
from repro.tracking.run import Run
from stages import params as project
from stages.params import Params, SampleParams
from verse.metrics import assess, pooled_metrics


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
    write_json(project.SAMPLE_METRICS, sample_metrics(trained, samples))
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
    """Counts, what of the text is new, and for a model of verse how much of it is verse."""
    texts = [result.text[len(result.prompt) :] for result in samples]
    lines = [line for text in texts for line in text.split("\n") if line]
    size, vocab_size = sum(map(len, texts)), trained.run_config.vocab_size
    train_ids, val_ids = (
        open_tokens(project.TOKENS, split, vocab_size) for split in ("train", "val")
    )
    train_text = trained.tokenizer.decode(train_ids[-MAX_SEARCHED_TOKENS:])
    # A character is at most as many tokens as it has bytes.
    val_text = trained.tokenizer.decode(val_ids[: 4 * size])[:size]
    metrics: dict[str, Any] = {
        "samples": len(samples),
        "characters": sum(len(result.text) for result in samples),
        "line_length": rounded(sum(map(len, lines)) / len(lines)) if lines else None,
        "novelty": novelty_metrics(texts, train_text, val_text),
    }
    if trained.run_config.data["corpus"] == "verse":
        metrics["verse"] = pooled_metrics([assess(result.text) for result in samples])
    return metrics


if __name__ == "__main__":
    run_stage.main(project.PROJECT, "sample", sample)
