"""Stage `sample`: write text with the trained model.  python -m stages.sample

As a stage it reads data/model, data/tokens (to tell what of the text is new) and the params
`sample`, and writes data/samples, metrics/samples.md and metrics/sample.json. With options it runs
outside DVC: it prints as it writes, and touches no file:

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
from gpt.evaluation.novelty import (
    Pieces,
    distinct,
    longest_shared_run,
    new_ngrams,
    rouge_2_among,
    rouge_2_nearest,
    words_of,
)
from gpt.files import write_json
from gpt.generation import Sample, Sampling, beam_generate, generate, printable
from repro import run_stage
from repro.tracking.run import Run
from stages.params import (
    MODEL,
    PROJECT,
    SAMPLE_METRICS,
    SAMPLES,
    SAMPLES_PAGE,
    TOKENS,
    Params,
    SampleParams,
    check,
    load,
)
from verse.metrics import VerseScores, assess

# Copies are looked for in at most the last so many tokens of the training split.
SEARCHED_TOKENS = 2_000_000
NGRAMS = range(4, 17)
# Between texts that are printed one after the other.
RULE = "\n" + "-" * 40


def sample(params: Params, run: Run) -> None:
    asked = params.sample
    trained = load_model(MODEL, params.model_source)
    trained.device.apply()
    with tqdm(
        desc="sample", total=asked.num_samples * asked.max_new_tokens, unit="char", disable=None
    ) as bar:
        count = range(asked.num_samples)

        def shown(index: int, text: str) -> None:
            bar.update(len(text))

        samples = write(trained, asked, count, shown)
    SAMPLES.parent.mkdir(parents=True, exist_ok=True)
    with SAMPLES.open("w", encoding="utf-8", newline="\n") as file:
        for index, one in enumerate(samples):
            facts = {
                "sample": index,
                "prompt": one.prompt,
                "text": one.text,
                "seed": asked.seed,
                "stop_reason": one.stop_reason,
                "new_tokens": one.new_tokens,
            }
            file.write(json.dumps(facts, sort_keys=True, ensure_ascii=False) + "\n")
    SAMPLES_PAGE.parent.mkdir(parents=True, exist_ok=True)
    SAMPLES_PAGE.write_bytes(page(asked, samples).encode())
    write_json(SAMPLE_METRICS, scores(trained, samples))
    print(printable(samples[0].text))


def write(
    trained: TrainedModel,
    asked: SampleParams,
    indices: Sequence[int],
    on_text: Callable[[int, str], None],
) -> list[Sample]:
    """Those of the samples that `asked` describes whose index is in `indices`."""
    sampling = Sampling(
        max_new_tokens=asked.max_new_tokens,
        temperature=asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p,
        stop=asked.stop,
    )
    return generate(
        trained.model,
        trained.tokenizer,
        asked.read_prompt(),
        sampling,
        seed=asked.seed,
        indices=indices,
        on_text=on_text,
    )


def page(asked: SampleParams, samples: list[Sample]) -> str:
    """metrics/samples.md: the texts, in fences that no text can close, and their settings."""
    settings = f"temperature {asked.temperature}, top_k {asked.top_k}, top_p {asked.top_p}"
    parts = [f"# Samples\n\n{settings}, seed {asked.seed}\n"]
    for index, one in enumerate(samples):
        fence = "```"
        while fence in one.text:
            fence += "`"
        parts.append(f"## {index} ({one.stop_reason})\n\n{fence}\n{printable(one.text)}\n{fence}\n")
    return "\n".join(parts)


def scores(trained: TrainedModel, samples: list[Sample]) -> dict[str, Any]:
    """Counts, what of the text is new, and for a model of verse how much of it is verse."""
    texts = [one.text[len(one.prompt) :] for one in samples]
    lines = [line for text in texts for line in text.split("\n") if line]
    result: dict[str, Any] = {
        "samples": len(samples),
        "characters": sum(len(one.text) for one in samples),
        "line_length": _rounded(sum(map(len, lines)) / len(lines) if lines else None),
        "novelty": novelty(trained, texts),
    }
    if trained.run_config.data["corpus"] == "verse":
        result["verse"] = verse_scores([assess(one.text) for one in samples])
    return result


def novelty(trained: TrainedModel, texts: list[str]) -> dict[str, Any]:
    """How much of what was written the training text has, and the samples have in common.

    `validation` gives the same figures for as much text from the validation split: what somebody
    who writes in the same way, and copies nothing, shares with the training text.
    """
    ids = {
        split: open_tokens(TOKENS, split, trained.run_config.vocab_size)
        for split in ("train", "val")
    }
    train_text = trained.tokenizer.decode(ids["train"][-SEARCHED_TOKENS:])
    train, train_words = Pieces([train_text]), words_of(train_text)
    written = [words_of(text) for text in texts]
    nearest = [rouge_2_nearest(words, train_words) for words in written]
    size = sum(map(len, texts))
    # A character is at most as many tokens as it has bytes.
    held_out = trained.tokenizer.decode(ids["val"][: 4 * size])[:size]
    return {
        **_copied(Pieces(texts), train),
        "validation": _copied(Pieces([held_out]), train),
        **{f"distinct_{n}": _rounded(distinct(written, n)) for n in (1, 2, 3)},
        "rouge_2_among": _rounded(rouge_2_among(written)),
        "rouge_2_train": _rounded(sum(nearest) / len(nearest)),
    }


def _copied(texts: Pieces, train: Pieces) -> dict[str, Any]:
    new = {f"{n:02}": _rounded(new_ngrams(texts, train, n)) for n in NGRAMS}
    return {"longest_shared_run": len(longest_shared_run(texts, train)), "new_ngrams": new}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def verse_scores(found: list[VerseScores]) -> dict[str, Any]:
    """The shares over all samples together, each weighted by what it counts."""

    def together(share: str, of: str) -> float | None:
        pairs = [(getattr(one, share), getattr(one, of)) for one in found]
        known = [(value, weight) for value, weight in pairs if value is not None]
        total = sum(weight for _, weight in known)
        return round(sum(v * w for v, w in known) / total, 6) if total else None

    return {
        "words": sum(one.words for one in found),
        "known_words": together("known_words", "words"),
        "lines": sum(one.lines for one in found),
        "metrical_lines": together("metrical_lines", "lines"),
        "couplets": sum(one.couplets for one in found),
        "rhymed_couplets": together("rhymed_couplets", "couplets"),
    }


def by_hand(
    prompt: Annotated[str | None, typer.Option(help="What the text goes on from.")] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="The file that holds it.")] = None,
    num_samples: Annotated[int | None, typer.Option(help="How many texts.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Tokens written per text.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0: the likeliest token.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Among the k likeliest; 0 is off.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Among those that sum to p.")] = None,
    stop: Annotated[str | None, typer.Option(help="End where this appears.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same text.")] = None,
    beams: Annotated[
        int, typer.Option(min=0, help="Search the likeliest text with so many beams; 0: draw.")
    ] = 0,
    model: Annotated[Path, typer.Option(help="A folder that the train stage wrote.")] = MODEL,
) -> None:
    """Print text as the model writes it. What is not given is as in params.yaml."""
    options: dict[str, Any] = {
        "prompt": "" if prompt is None and prompt_file is not None else prompt,
        "prompt_file": None if prompt_file is None else str(prompt_file),
        "num_samples": num_samples,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "stop": stop,
        "seed": seed,
    }
    given = {key: value for key, value in options.items() if value is not None}
    try:
        params = load()
        asked = check(SampleParams, "sample", {**params.sample.model_dump(), **given})
        drawing = [name for name in ("temperature", "top_k", "top_p", "seed") if name in given]
        if beams and drawing:
            option = "--" + drawing[0].replace("_", "-")
            raise ParamsError(f"{option}: nothing is drawn with --beams; leave one of them out")
        if beams and num_samples is not None and num_samples > beams:
            raise ParamsError(
                f"--num-samples {num_samples}: --beams {beams} finds no more than that"
            )
        trained = load_model(model, params.model_source)
        trained.device.apply()
        if beams:
            _print_likeliest(trained, asked, beams, num_samples or 1)
            return
        for index in range(asked.num_samples):
            if index:
                print(RULE)
            print(printable(asked.read_prompt()), end="", flush=True)
            # One after the other, so that each can be printed while it is written.
            write(trained, asked, [index], _print_piece)
        print()
    except GptError as error:
        print(f"sample: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


def _print_likeliest(trained: TrainedModel, asked: SampleParams, beams: int, count: int) -> None:
    """The likeliest texts that so many beams find, and on stderr how likely each is."""
    found = beam_generate(
        trained.model,
        trained.tokenizer,
        asked.read_prompt(),
        beams=beams,
        max_new_tokens=asked.max_new_tokens,
        stop=asked.stop,
    )
    for index, (one, log_probability) in enumerate(found[:count]):
        if index:
            print(RULE)
        print(printable(one.text), end="", flush=True)
        print(
            f"\n{one.new_tokens} tokens, log-probability {log_probability:.3f} nats",
            file=sys.stderr,
        )
    print()


def _print_piece(index: int, text: str) -> None:
    print(printable(text), end="", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        typer.run(by_hand)
    else:
        run_stage.main(PROJECT, "sample", sample)
