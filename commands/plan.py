"""`gpt plan`: what a training will take, before it is begun.

Parameters and operations are arithmetic (gpt/evaluation/flops.py). Time and memory are measured:
the model is built and trained on random tokens for some seconds, on this machine, in this process.
"""

import contextlib
import importlib
import json
import sys
import time
import warnings
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import psutil
import torch
import typer

from commands.root import at_root
from gpt.batches import RandomCrops, val_batches
from gpt.decoding.decoder import KVCacheDecoder
from gpt.device import choose_device
from gpt.errors import DataError, ParamsError
from gpt.evaluation.flops import flops_per_token, parameter_count, state_bytes, steps_of, tokens_of
from gpt.files import read_json
from gpt.model import GPT
from gpt.trainer import Callback, StepStats, Trainer
from stages.params import TOKENIZE_METRICS, Params, load, parse

FIRST_UPDATES = 3  # slower than the rest: memory is taken, threads are started
# MLflow loads them when a row begins.
TRACKED = ("mlflow", "mlflow.store.tracking.sqlalchemy_store", "mlflow.system_metrics")
SAMPLED = 32  # tokens written to see how long one takes
# Ids where no text has been tokenised yet: about what English text has of characters.
CHARACTERS = 65

app = typer.Typer()


class _Enough(Exception):
    """Ends the trial."""


@dataclass(frozen=True)
class Plan:
    """Seconds are those of the whole training; bytes those of the whole process at its peak."""

    parameters: int
    tokens: int
    flops: float
    state_bytes: int
    seconds: float | None = None
    bytes: int | None = None
    device: str = ""


def with_changes(changes: list[str]) -> Params:
    """params.yaml with `key=value`, as `dvc exp run -S` takes them. Raises ParamsError."""
    sections = load().model_dump()
    raw: list[str] = []
    for change in changes:
        key, equals, value = change.partition("=")
        section, dot, name = key.strip().partition(".")
        if not equals or not key.strip():
            raise ParamsError(f"-S {change}: write -S KEY=VALUE, as in -S model.n_layer=4")
        place = sections
        if dot and isinstance(sections.get(section), dict):
            place, section = sections[section], name
        place[section] = f"change {len(raw)}"
        # dvc takes these for text, YAML for signs of its own.
        raw.append(json.dumps(value) if value[:1] in tuple("*&!|>%@`") else value)
    # JSON is YAML. Values stand in it as they were typed, so that they are read as in params.yaml.
    text = json.dumps(sections)
    for number, value in enumerate(raw):
        text = text.replace(f'"change {number}"', value or "null")
    return parse(text)


def vocabulary(params: Params) -> int:
    """Ids that the tokenizer has, or will have at most."""
    kind = params.tokenizer.kind
    if kind == "char":
        try:
            return int(read_json(TOKENIZE_METRICS)["vocab_size"])
        except DataError:
            return CHARACTERS
    return {"byte": 257, "gpt2": 50_257}.get(kind, params.tokenizer.vocab_size)


def plan(params: Params, seconds: float) -> Plan:
    """What the training of `params` takes, from a trial of `seconds` (0: no trial)."""
    model_config, config, _ = params.resolved()
    vocab_size = vocabulary(params)
    parameters = parameter_count(model_config, vocab_size)
    steps = steps_of(model_config, config, vocab_size, parameters)
    config = config.model_copy(update={"steps": steps})
    tokens = tokens_of(model_config, config)
    flops = float(tokens * flops_per_token(model_config, vocab_size))
    state = state_bytes(model_config, config, vocab_size)
    if not seconds or not config.steps:
        return Plan(parameters, tokens, flops, state)
    # What the stage loads beside the model takes memory as well.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries say of each other
        for module in ("stages.train", *(TRACKED if params.runtime.tracking else ())):
            importlib.import_module(module)
    device = choose_device(config.device, config.dtype, config.threads)
    device.apply()
    draw = np.random.default_rng(0)
    block_size, batch_size = model_config.block_size, config.batch_size
    ids = draw.integers(vocab_size, size=50 * block_size + config.eval_tokens).astype(np.uint32)
    trainer = Trainer(
        GPT(model_config, vocab_size, params.seed),
        RandomCrops(ids, block_size=block_size, batch_size=batch_size, seed=params.seed),
        val_batches(ids, block_size=block_size, tokens=config.eval_tokens, batch_size=batch_size),
        config.model_copy(update={"eval_every": 0}),
        device,
        params.seed,
    )
    moments = [time.monotonic()]

    class Clock(Callback):
        def on_step_end(self, trainer: Trainer, stats: StepStats) -> None:
            moments.append(time.monotonic())
            if len(moments) > FIRST_UPDATES + 3 and moments[-1] - moments[0] > seconds:
                raise _Enough

    trainer.callbacks.append(Clock())
    with contextlib.suppress(_Enough):
        trainer.run()
    updates = np.diff(moments)
    # The mean, since a whole training has its slow updates too.
    a_step = float(np.mean(updates[FIRST_UPDATES:] if len(updates) > FIRST_UPDATES else updates))
    begun = time.monotonic()
    trainer.validation_loss()
    a_look = time.monotonic() - begun
    if not params.runtime.sample_every:  # then each look shows a sample
        shown = params.runtime.sample_tokens
        a_look += shown * _a_token(trainer.model, device.name, shown)
    looks = 1 + (config.steps // config.eval_every if config.eval_every else 0)
    whole = config.steps * a_step + looks * a_look
    peak = _peak_bytes(device.name)
    return Plan(parameters, tokens, flops, state, whole, peak, f"{device.name} {device.dtype}")


@torch.inference_mode()
def _a_token(model: GPT, device: str, tokens: int) -> float:
    """The seconds of writing one of a text of `tokens`."""
    decoder = KVCacheDecoder(model)
    ids_bt = torch.zeros((1, 1), dtype=torch.int64, device=device)
    decoder.read(ids_bt)
    count = min(SAMPLED, model.config.block_size - 1)
    begun = time.monotonic()
    for _ in range(count):
        decoder.read(ids_bt)
    return (time.monotonic() - begun) / max(1, count)


def _peak_bytes(device: str) -> int:
    """The most memory that this process has had: of the GPU where it trains there."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_reserved())
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def text_of(found: Plan, price: float) -> str:
    """The plan for a terminal; `price` is what an hour of the machine costs (0: not told)."""
    lines = [
        f"parameters  {found.parameters:,}",
        f"tokens      {found.tokens:,}",
        f"compute     {found.flops:.3g} operations",
        f"memory      {found.state_bytes / 1e6:,.0f} MB of weights, gradients and moments",
    ]
    if found.seconds is not None and found.bytes is not None:
        lines[-1] += f"; the whole process {found.bytes / 1e6:,.0f} MB"
        rate = found.flops / found.seconds
        lines.append(
            f"time        {_duration(found.seconds)} on this machine as busy as it is now "
            f"({found.device}, {rate / 1e9:,.1f} billion operations/s)"
        )
        if price:
            lines.append(f"cost        {price * found.seconds / 3600:,.2f}")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} seconds"


@app.command("plan")
def plan_training(
    changes: Annotated[
        list[str] | None, typer.Option("-S", "--set-param", help="KEY=VALUE, as for dvc exp run.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long to try; 0: arithmetic alone.")] = 8.0,
    price: Annotated[float, typer.Option(help="Of an hour of the machine.")] = 0.0,
) -> None:
    """Parameters, operations, memory and time of a training, before it starts."""
    with at_root():
        print(text_of(plan(with_changes(changes or []), seconds), price))
