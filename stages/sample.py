"""Stage `sample`: generates text with the trained model.  python -m stages.sample

As a stage it reads data/model, data/tokens (to see what of the text is new) and the params
`sample`, and writes data/samples, metrics/samples.md and metrics/sample.json. With options it runs
outside DVC: it prints text as it is generated, and writes no file:

    python -m stages.sample --prompt "ROMEO:" --temperature 0.9
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from gpt.batches import open_tokens
from gpt.checkpoint import TrainedModel, load_model
from gpt.errors import GptError, ParamsError
from gpt.evaluation.novelty import MAX_SEARCHED_TOKENS, novelty_metrics
from gpt.files import rounded, write_json
from gpt.generation import Sample, Sampling, beam_generate, generate, printable
from repro import run_stage
from repro.tracking.run import Run
from stages import params as project
from stages.params import Params, SampleParams
from verse.metrics import assess, pooled_metrics

SAMPLED = ("temperature", "top_k", "top_p", "seed")  # options that beam search has no use for
SEPARATOR = "\n" + "-" * 40  # between printed texts


def sample(params: Params, run: Run) -> None:
    settings = params.sample
    trained = load_model(project.MODEL, params.model_source)
    trained.device.apply()
    with tqdm(desc="sample", unit="char", disable=None) as bar:

        def on_text(index: int, text: str) -> None:
            bar.update(len(text))

        samples = generate_samples(trained, settings, range(settings.num_samples), on_text)
    project.SAMPLES.parent.mkdir(parents=True, exist_ok=True)
    with project.SAMPLES.open("w", encoding="utf-8", newline="\n") as file:
        for index, result in enumerate(samples):
            line = {"sample": index, "seed": settings.seed, **vars(result)}
            file.write(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n")
    project.SAMPLES_PAGE.parent.mkdir(parents=True, exist_ok=True)
    project.SAMPLES_PAGE.write_bytes(samples_page(settings, samples).encode())
    write_json(project.SAMPLE_METRICS, sample_metrics(trained, samples))
    print(printable(samples[0].text))


def generate_samples(
    trained: TrainedModel,
    settings: SampleParams,
    indices: Sequence[int],
    on_text: Callable[[int, str], None],
) -> list[Sample]:
    """The samples of `settings` whose index is in `indices`."""
    fields = settings.model_dump(include=set(Sampling.__dataclass_fields__))
    return generate(
        trained.model,
        trained.tokenizer,
        settings.read_prompt(),
        Sampling(**fields),
        seed=settings.seed,
        indices=indices,
        on_text=on_text,
    )


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


def by_hand(
    prompt: Annotated[str | None, typer.Option(help="The text to continue.")] = None,
    prompt_file: Annotated[str | None, typer.Option(help="A file that holds it.")] = None,
    num_samples: Annotated[int | None, typer.Option(help="Number of texts.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Tokens per text.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0: the most likely token.")] = None,
    top_k: Annotated[int | None, typer.Option(help="The k most likely; 0: off.")] = None,
    top_p: Annotated[float | None, typer.Option(help="The most likely that sum to p.")] = None,
    stop: Annotated[str | None, typer.Option(help="End where this appears.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same text.")] = None,
    beams: Annotated[int, typer.Option(min=0, help="Beam search instead of sampling.")] = 0,
    model: Annotated[Path, typer.Option(help="A folder of the train stage.")] = project.MODEL,
) -> None:
    """Print text as the model generates it. Options that are left out are as in params.yaml."""
    options = {key: value for key, value in locals().items() if value is not None}
    del options["beams"], options["model"]
    if prompt_file is not None:
        options.setdefault("prompt", "")
    try:
        params = project.load()
        values = {**params.sample.model_dump(), **options}
        settings = project.check(SampleParams, "sample", values)
        for name in SAMPLED if beams else ():
            if name in options:
                raise ParamsError(f"--{name.replace('_', '-')}: not used by --beams; leave it out")
        if beams and (num_samples or 1) > beams:
            raise ParamsError(f"--num-samples {num_samples}: --beams {beams} finds at most {beams}")
        trained = load_model(model, params.model_source)
        trained.device.apply()
        if beams:
            print_beams(trained, settings, beams, num_samples or 1)
            return
        for index in range(settings.num_samples):
            if index:
                print(SEPARATOR)
            _print_text(index, settings.read_prompt())
            # One after the other, so that each can be printed while it is generated.
            generate_samples(trained, settings, [index], _print_text)
        print()
    except GptError as error:
        print(f"sample: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


def print_beams(trained: TrainedModel, settings: SampleParams, beams: int, count: int) -> None:
    """Prints the most likely texts of a beam search, and on stderr how likely each is."""
    results = beam_generate(
        trained.model,
        trained.tokenizer,
        settings.read_prompt(),
        beams=beams,
        max_new_tokens=settings.max_new_tokens,
        stop=settings.stop,
    )
    for index, (result, log_probability) in enumerate(results[:count]):
        if index:
            print(SEPARATOR)
        _print_text(index, result.text)
        likelihood = f"{result.new_tokens} tokens, log-probability {log_probability:.3f} nats"
        print("\n" + likelihood, file=sys.stderr)
    print()


def _print_text(index: int, text: str) -> None:
    print(printable(text), end="", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        typer.run(by_hand)
    else:
        run_stage.main(project.PROJECT, "sample", sample)
