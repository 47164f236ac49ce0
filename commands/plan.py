"""`gpt plan`: what a training takes, before it runs.

Parameters, FLOPs and bytes of state are counted on a model without weights. Time and memory are
measured: the model trains on random tokens for some seconds, on this machine, in this process.
"""

import importlib
import json
import sys
import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import psutil
import torch
import typer

from commands.root import at_root, complete_metrics
from gpt.batches import RandomCrops, val_batches
from gpt.config import OUR_SOURCE, ModelConfig
from gpt.decoding.decoder import KVCacheDecoder
from gpt.device import choose_device
from gpt.errors import ParamsError
from gpt.evaluation.flops import flops_per_token, state_bytes, steps_of, tokens_per_step
from gpt.files import read_json
from gpt.model import GPT
from gpt.model_source import count_parameters, make_model, without_weights
from gpt.trainer import Trainer
from repro.errors import UserError
from repro.params import parse_yaml
from repro.tracking import mlflow_internals
from stages.params import TOKENIZE_METRICS, Params, load, parse

WARMUP_UPDATES = 3  # slower than the rest: memory is allocated, threads are started
TIMED_TOKENS = 32  # generated to measure the time per token
CHARACTERS = 65  # vocabulary of `char` before any text is tokenized: about that of English text

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Plan:
    """What a training takes; the last three only after a trial."""

    parameters: int
    tokens: int
    flops: float
    state_bytes: int
    seconds: float = 0.0  # of the training
    peak_bytes: int = 0  # of this process
    device: str = ""


def with_changes(changes: list[str]) -> Params:
    """params.yaml with `key=value` changes, as `dvc exp run -S` reads them. Raises ParamsError."""
    sections = load().model_dump()
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not key.strip():
            raise ParamsError(f"-S {change}: write -S KEY=VALUE, as in -S model.n_layer=4")
        section, _, name = key.strip().rpartition(".")
        keys = sections.get(section)
        target, name = (keys, name) if isinstance(keys, dict) else (sections, key.strip())
        target[name] = _yaml_value(value)
    return parse(json.dumps(sections))  # JSON is YAML


def _yaml_value(text: str) -> Any:
    """`text` as a YAML 1.2 value; like DVC, as a string where it is YAML's syntax or no YAML."""
    if text.startswith(("&", "|", ">")):
        return text
    try:
        return parse_yaml(f"value: {text}")["value"]
    except UserError:
        return text


def expected_vocab_size(params: Params) -> int:
    """Ids that the tokenizer has, or will have at most."""
    kind = params.tokenizer.kind
    if kind == "char":
        if not TOKENIZE_METRICS.exists():
            return CHARACTERS
        with complete_metrics():
            return int(read_json(TOKENIZE_METRICS)["vocab_size"])
    return {"byte": 257, "gpt2": 50_257}.get(kind, params.tokenizer.vocab_size)


def plan(params: Params, seconds: float) -> Plan:
    """What the training of `params` takes, measured in a trial of `seconds` (0: no trial)."""
    shape, config, _ = params.resolved()
    vocab_size = expected_vocab_size(params)
    model = model_to_count(shape, vocab_size)
    parameters, muon_parameters = count_parameters(model), 0
    # A learner's model may lack the groups; the trial, or training, says what Muon needs.
    if config.optimizer == "muon" and hasattr(model, "parameter_groups"):
        matrices = model.parameter_groups().hidden_matrices
        muon_parameters = sum(matrix.numel() for matrix, _ in matrices)
    steps = steps_of(shape, config, vocab_size, parameters)
    tokens = steps * tokens_per_step(shape, config)
    flops = float(tokens * flops_per_token(shape, vocab_size))
    counted = Plan(parameters, tokens, flops, state_bytes(parameters, muon_parameters))
    return _with_trial(counted, params, steps, seconds) if seconds and steps else counted


def model_to_count(shape: ModelConfig, vocab_size: int) -> GPT:
    """The model of `shape`; ours without memory for its weights."""
    # A learner's file may compute with the weights that it initializes.
    with without_weights() if shape.source == OUR_SOURCE else nullcontext():
        return make_model(shape, vocab_size)


def _with_trial(counted: Plan, params: Params, steps: int, seconds: float) -> Plan:
    """`counted` with time and memory, from training for `seconds`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries warn of each other
        # What the stage and a run of MLflow import takes memory too.
        importlib.import_module("stages.train")
        if params.tracking:
            for module in mlflow_internals.MODULES:
                importlib.import_module(module)
    shape, config, _ = params.resolved()
    vocab_size, block_size = expected_vocab_size(params), shape.block_size
    device = choose_device(config.device, config.dtype, config.threads, config.processes)
    device.apply()
    num_ids = 50 * block_size + config.eval_tokens
    ids = np.random.default_rng(0).integers(vocab_size, size=num_ids).astype(np.uint32)
    sizes: dict[str, Any] = {"block_size": block_size, "batch_size": config.batch_size}
    model = make_model(shape, vocab_size, params.seed)
    train = RandomCrops(ids, seed=params.seed, **sizes)
    val = val_batches(ids, tokens=config.eval_tokens, **sizes)
    config = config.model_copy(update={"steps": steps})
    trainer = Trainer(model, train, val, config, device, params.seed)
    trainer.model.train()
    times = [time.monotonic()]
    for step in range(steps):
        trainer.train_step(step)
        times.append(time.monotonic())
        if step > WARMUP_UPDATES and times[-1] - times[0] > seconds:
            break
    updates = np.diff(times)
    # The mean, not the median: a whole training has its slow updates too.
    per_step = float(np.mean(updates[WARMUP_UPDATES if len(updates) > WARMUP_UPDATES else 0 :]))
    start = time.monotonic()
    trainer.validation_loss()
    per_evaluation = time.monotonic() - start
    if not params.runtime.sample_every:  # then every evaluation shows a sample
        per_token = _seconds_per_token(trainer.model, device.name)
        per_evaluation += params.runtime.sample_tokens * per_token
    evaluations = 1 + (steps // config.eval_every if config.eval_every else 0)
    return replace(
        counted,
        seconds=steps * per_step + evaluations * per_evaluation,
        peak_bytes=_peak_bytes(device.name),
        device=f"{device.name} {device.dtype}",
    )


@torch.inference_mode()
def _seconds_per_token(model: GPT, device: str) -> float:
    """Seconds to generate a token."""
    decoder = KVCacheDecoder(model)
    ids_bt = torch.zeros((1, 1), dtype=torch.int64, device=device)
    decoder.read(ids_bt)
    count = min(TIMED_TOKENS, model.config.block_size - 1)
    start = time.monotonic()
    for _ in range(count):
        decoder.read(ids_bt).cpu()  # as generation does; a GPU only queues work until then
    return (time.monotonic() - start) / max(1, count)


def _peak_bytes(device: str) -> int:
    """Peak memory of this process, or of the GPU that it trains on."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_reserved())
    if device == "mps":  # memory is kept for reuse, so that what is held now is about the peak
        return int(torch.mps.driver_allocated_memory())
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # Windows has none

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def text_of(plan: Plan, price: float) -> str:
    """The plan for a terminal; `price` is per hour of the machine (0: not shown)."""
    lines = [
        f"parameters  {plan.parameters:,}",
        f"tokens      {plan.tokens:,}",
        f"compute     {plan.flops:.3g} FLOPs",
        f"memory      {plan.state_bytes / 1e6:,.0f} MB of weights, gradients and moments",
    ]
    if plan.seconds:
        lines[-1] += f"; the process {plan.peak_bytes / 1e6:,.0f} MB"
        lines.append(
            f"time        {_duration(plan.seconds)} on this machine under its present load "
            f"({plan.device}, {plan.flops / plan.seconds / 1e9:,.1f} GFLOP/s)"
        )
        if price:
            lines.append(f"cost        {price * plan.seconds / 3600:,.2f}")
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
    seconds: Annotated[float, typer.Option(help="Length of the trial; 0: no trial.")] = 8.0,
    price: Annotated[float, typer.Option(help="Price of an hour of the machine.")] = 0.0,
) -> None:
    """Parameters, FLOPs, memory and time of a training, before it starts."""
    with at_root():
        print(text_of(plan(with_changes(changes or []), seconds), price))
