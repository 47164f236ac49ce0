"""`gpt sample`: text from the trained model, printed as it is generated. It writes no file.

With --beams N it searches the most likely text instead, and prints on stderr how likely it is.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from commands.root import ModelFolder, at_root
from gpt.checkpoint import TrainedModel, load_model
from gpt.errors import ParamsError
from gpt.generation import Sampling, beam_generate, generate, printable
from stages.params import MODEL, SampleParams, check, load

SAMPLING = ("temperature", "top_k", "top_p", "seed")  # options that beam search has no use for
SEPARATOR = "-" * 40  # between printed texts

app = typer.Typer(add_completion=False)


@app.command("sample")
def sample_text(
    prompt: Annotated[str | None, typer.Option(help="The text to continue.")] = None,
    prompt_file: Annotated[
        Path | None, typer.Option(help="A file that holds it.", resolve_path=True)
    ] = None,
    num_samples: Annotated[int | None, typer.Option(help="Number of texts.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Tokens per text.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0: the most likely token.")] = None,
    top_k: Annotated[int | None, typer.Option(help="The k most likely; 0: off.")] = None,
    top_p: Annotated[float | None, typer.Option(help="The most likely that sum to p.")] = None,
    stop: Annotated[str | None, typer.Option(help="End where this appears.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same text.")] = None,
    beams: Annotated[int, typer.Option(min=0, help="Beam search instead of sampling.")] = 0,
    model: ModelFolder = None,
) -> None:
    """Print text as the model generates it. Options that are left out are as in params.yaml."""
    options = {key: value for key, value in locals().items() if value is not None}
    for name in ("beams", "model"):
        options.pop(name, None)
    if prompt_file is not None:
        options = {"prompt": "", **options, "prompt_file": str(prompt_file)}
    with at_root():
        for name in SAMPLING if beams else ():
            if name in options:
                raise ParamsError(f"--{name.replace('_', '-')}: not used by --beams; leave it out")
        if beams and (num_samples or 1) > beams:
            raise ParamsError(f"--num-samples {num_samples}: --beams {beams} finds at most {beams}")
        params = load()
        settings = check(SampleParams, "sample", {**params.sample.model_dump(), **options})
        trained = load_model(model or MODEL, params.model_source)
        trained.device.apply()
        if beams:
            _print_beams(trained, settings, beams, num_samples or 1)
        else:
            _print_samples(trained, settings)


def _print_samples(trained: TrainedModel, settings: SampleParams) -> None:
    """One text after the other, so that each is printed while it is generated."""
    sampling = Sampling(**settings.model_dump(include=set(Sampling.__dataclass_fields__)))
    prompt = settings.read_prompt()
    for index in range(settings.num_samples):
        if index:
            print(SEPARATOR)
        _print_text(index, prompt)
        try:
            generate(
                trained.model,
                trained.tokenizer,
                prompt,
                sampling,
                seed=settings.seed,
                indices=[index],
                on_text=_print_text,
            )
        finally:
            print(flush=True)  # an error begins its own line


def _print_beams(trained: TrainedModel, settings: SampleParams, beams: int, count: int) -> None:
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
        print(flush=True)
        likelihood = f"{result.new_tokens} tokens, log-probability {log_probability:.3f} nats"
        print(likelihood, file=sys.stderr)


def _print_text(index: int, text: str) -> None:
    print(printable(text), end="", flush=True)
