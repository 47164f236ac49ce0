"""Stage `train`: train the GPT and keep its best checkpoint.  python -m stages.train

Reads data/tokens and the params `preset`, `model`, `train`, `seed`. Writes data/model,
metrics/train.json and metrics/curves/train.csv. Killed and started again it goes on where it was,
to the same bits: its states lie under .cache/train of the main repository until it is done.
"""

import hashlib
import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from gpt.batches import Batches, EpochBatches, Tokens, even_windows, manifest, open_tokens, parts_of
from gpt.checkpoint import DeviceRecord, ModelRecord, TrainingStates, save_model
from gpt.config import ModelConfig, TrainConfig
from gpt.corpus.downloads import Download, fetch
from gpt.device import Device, choose_device
from gpt.distributed import Group
from gpt.errors import DataError, TrainingError
from gpt.evaluation.diagnostics import Finding, diagnose
from gpt.evaluation.flops import steps_of
from gpt.files import read_json, sha256_of, write_json
from gpt.interop.gpt2_weights import read_pretrained, weights_file
from gpt.model_source import count_parameters, make_model
from gpt.packing import PackedBatches
from gpt.tokenizers.base import Tokenizer, line_breaks
from gpt.tokenizers.file import load_tokenizer
from gpt.trainer import CURVE_COLUMNS, Callbacks, Trainer
from repro import processes, repository
from repro.errors import Interrupted
from repro.lockfile import code_files
from repro.tracking.run import Run
from stages.params import CURVE, MIRROR, MODEL, PROJECT, TOKENS, TRAIN_METRICS, Params

# What train.init_from may name without a file.
HUGGING_FACE = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
# What a folder of saved states is of.
RECORD = "record.json"


def train(params: Params, run: Run) -> None:
    model_config, config, _ = params.resolved()
    changes = f", overridden: {params.changes}" if params.changes else ""
    print(f"preset {params.preset}{changes}")
    timeout_seconds = params.runtime.timeout_seconds
    with (
        _memory_errors(model_config, config),
        processes.process_group(config.device, timeout_seconds) as (rank, size),
    ):
        _train(params, run, model_config, config, Group(rank, size))


def _train(
    params: Params, run: Run, model_config: ModelConfig, config: TrainConfig, group: Group
) -> None:
    device = choose_device(config.device, config.dtype, config.threads)
    tokenizer = load_tokenizer(TOKENS / "tokenizer.json")
    train_ids = open_tokens(TOKENS, "train", tokenizer.vocab_size)
    val_ids = open_tokens(TOKENS, "val", tokenizer.vocab_size)
    block_size, batch_size = model_config.block_size, config.batch_size
    batches = make_batches(train_ids, model_config, config, tokenizer, params.seed)
    val_windows = even_windows(
        val_ids, block_size=block_size, tokens=config.eval_tokens, batch_size=batch_size
    )
    model = make_model(model_config, tokenizer.vocab_size, params.seed, line_breaks(tokenizer))
    steps = steps_of(model_config, config, tokenizer.vocab_size, count_parameters(model))
    config = config.model_copy(update={"steps": steps, "processes": group.size})
    if config.budget:
        print(f"{config.budget} are {steps:,} steps")
    if config.warmup_steps > config.steps:
        print(f"warm-up of {config.warmup_steps} steps cut to the run's {config.steps}")
    pretrained = pretrained_file(config.init_from)
    if pretrained is not None:
        model.load_state_dict(read_pretrained(pretrained, model_config, tokenizer.vocab_size))
        print(f"begins from {config.init_from}: pretrained, so no competition takes it")
    record = record_of(model_config, config, params.seed, tokenizer, device, pretrained)
    together = f", {group.size} processes ({config.sharding})" if group.size > 1 else ""
    print(
        f"{count_parameters(model):,} parameters, {len(train_ids):,} tokens, "
        f"{device.name} {device.dtype}, {device.threads} threads{together}"
    )
    trainer = Trainer(model, batches, val_windows, config, device, params.seed, group)

    folder = repository.scratch() / "train" / record.fingerprint()
    # The first process alone keeps states; what it reads the others are sent.
    states = TrainingStates(folder, warn=lambda line: _say(line)) if group.first else None
    with states or nullcontext(), _stop_signals() as stop:
        saved = group.broadcast(states.latest() if states else None, device.name)
        if saved is not None:
            trainer.load_state(*saved)
            print(f"going on from step {trainer.progress.step}")
        elif states:
            _tell_of_another(folder, record)
        if states:
            write_json(folder / RECORD, record.model_dump())
        watch = _Watch(trainer, states, params, tokenizer, run, stop)
        trainer.run(watch.callbacks())
        watch.close()
        weights = trainer.kept_weights()
        if states is None:
            return
        if trainer.progress.stopped_early:
            print(f"stopped early at step {trainer.progress.step}")
        findings = diagnose(trainer.progress.curve, math.log(tokenizer.vocab_size))
        for finding in findings:
            print(finding)
        save_model(MODEL, weights, TOKENS / "tokenizer.json", record)
        write_metrics(params.preset, trainer, findings)
        if not params.runtime.keep_scratch:
            states.remove()


def make_batches(
    ids: Tokens, model: ModelConfig, config: TrainConfig, tokenizer: Tokenizer, seed: int
) -> Batches | EpochBatches | PackedBatches:
    """The batches of `train.packing`, from each source as its weight asks; tells of both."""
    parts = parts_of(manifest(TOKENS))
    shapes: dict[str, Any] = {
        "block_size": model.block_size,
        "batch_size": config.batch_size,
        "seed": seed,
    }
    if config.packing == "epochs":
        if parts:
            raise DataError(
                "train.packing epochs meets each token once, whatever data.weights say; set "
                "data.weights=[] or train.packing=stream"
            )
        return EpochBatches(ids, **shapes, passes=config.gradient_accumulation)
    shapes["parts"] = parts
    if parts:
        whole = sum(part.weight for part in parts)
        print(", ".join(f"{part.corpus} {part.weight / whole:.1%}" for part in parts))
    if config.packing == "stream":
        return Batches(ids, **shapes)
    packed = PackedBatches(ids, bos=tokenizer.bos, **shapes)
    print(f"best_fit: {packed.unseen:.1%} of the tokens lie beyond a block and are not trained on")
    return packed


def pretrained_file(init_from: str) -> Path | None:
    """The weights that `train.init_from` names, downloaded if they are Hugging Face's."""
    if not init_from:
        return None
    if init_from not in HUGGING_FACE:
        return weights_file(Path(repository.anchored(init_from)))
    file = Download(
        file=f"{init_from}/model.safetensors",
        url=f"https://huggingface.co/openai-community/{init_from}/resolve/main/model.safetensors",
    )
    return fetch(file, repository.scratch() / "pretrained", repository.location(MIRROR))


def record_of(
    model: ModelConfig,
    config: TrainConfig,
    seed: int,
    tokenizer: Tokenizer,
    device: Device,
    pretrained: Path | None = None,
) -> ModelRecord:
    """What the weights will depend on, with device, precision and threads as they are used."""
    digest = hashlib.sha256()
    for file in code_files("train", {"model": {"source": model.source}}):
        digest.update(f"{file.as_posix()}\n".encode() + file.read_bytes())
    used = {"device": device.name, "dtype": device.dtype, "threads": device.threads}
    tokens = manifest(TOKENS)
    return ModelRecord(
        model=model,
        vocab_size=tokenizer.vocab_size,
        train=config.model_copy(update=used),
        seed=seed,
        data={
            "corpus": tokens["corpus"],
            **{split: facts["sha256"] for split, facts in tokens["splits"].items()},
        },
        code_sha256=digest.hexdigest(),
        device=DeviceRecord(**device.as_dict()),
        tokenizer_sha256=sha256_of(TOKENS / "tokenizer.json"),
        pretrained_sha256=sha256_of(pretrained) if pretrained else "",
    )


def _tell_of_another(folder: Path, record: ModelRecord) -> None:
    """Says why saved states are left alone: by one difference of those that differ the least.

    A setting says more than the hash of a file that changed with it. Of states in `folder` itself,
    which are damaged, it was said when they were read.
    """
    mine = _flat(record.model_dump())
    others: list[tuple[list[str], Path]] = []
    for file in folder.parent.glob(f"*/{RECORD}"):
        if file.parent != folder and any(file.parent.glob("step_*")):
            try:
                theirs = _flat(read_json(file))
            except DataError:
                theirs = {}  # damaged: then nothing is known of it, and all differs
            differ = [
                f"{key} is {mine.get(key)!s:.16}, and was {theirs.get(key)!s:.16}"
                for key in sorted(mine | theirs, key=lambda key: ("sha256" in key, key))
                if mine.get(key) != theirs.get(key)
            ]
            others.append((differ, file.parent))
    if others:
        differ, other = min(others, key=lambda each: (len(each[0]), each[1]))
        more = f" (and {len(differ) - 1} more)" if len(differ) > 1 else ""
        print(f"a new training: {differ[0]}{more} in what is saved in {other}, and stays there")


def _flat(record: dict[str, Any], before: str = "") -> dict[str, Any]:
    """{'model.n_layer': 4, ...}"""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        name = before + key
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def write_metrics(preset: str, trainer: Trainer, findings: list[Finding]) -> None:
    """metrics/train.json, with the sizes as they were resolved, and the curve."""
    progress, model = trainer.progress, trainer.model.config
    CURVE.parent.mkdir(parents=True, exist_ok=True)
    curve = pd.DataFrame(progress.curve, columns=list(CURVE_COLUMNS))
    curve.to_csv(CURVE, index=False, lineterminator="\n")
    losses = curve["train_loss"].dropna()
    write_json(
        TRAIN_METRICS,
        {
            "preset": preset,
            "architecture": model.architecture,
            "n_layer": model.n_layer,
            "n_head": model.n_head,
            "n_embd": model.n_embd,
            "block_size": model.block_size,
            "packing": trainer.config.packing,
            "parameters": count_parameters(trainer.model),
            "steps": progress.step,
            "tokens": int(curve["tokens"].iloc[-1]),
            "best_step": progress.best_step,
            "best_val_loss": round(progress.best_val_loss, 6),
            "final_val_loss": round(progress.val_loss, 6),
            "diagnosis": ", ".join(finding.what for finding in findings) or "healthy",
            "final_train_loss": None if losses.empty else float(losses.iloc[-1]),
        },
    )


class _Watch:
    """What the stage does between two updates: show, track, sample, save, stop."""

    def __init__(
        self,
        trainer: Trainer,
        states: TrainingStates | None,
        params: Params,
        tokenizer: Tokenizer,
        run: Run,
        stop: list[str],
    ) -> None:
        config, shape = trainer.config, trainer.model.config
        self.a_step = config.batch_size * config.gradient_accumulation * shape.block_size
        self.states, self.runtime, self.run, self.stop = states, params.runtime, run, stop
        self.tokenizer, self.seed, self.trainer = tokenizer, params.seed, trainer
        self.saved_at = self.started = time.monotonic()
        self.first_step = trainer.progress.step
        self.bar = tqdm(
            total=config.steps * self.a_step,
            initial=self.first_step * self.a_step,
            desc="train",
            unit="tok",
            unit_scale=True,
            disable=None if states else True,
            dynamic_ncols=True,
        )
        self.shown: dict[str, str] = {}

    def callbacks(self) -> Callbacks:
        return Callbacks(self.on_update, self.on_point, self.on_look, self.between)

    def on_update(self, loss: float) -> None:
        self.shown["loss"] = f"{loss:.3f}"
        self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update(self.a_step)

    def on_point(self, point: dict[str, float]) -> None:
        values = {
            "train/loss": point["train_loss"],
            "train/learning_rate": point["learning_rate"],
            "train/grad_norm": point["grad_norm"],
            "train/clip_rate": point["clip_rate"],
        }
        self.run.log_metrics(values, step=int(point["step"]))

    def on_look(self, trainer: Trainer, val_loss: float) -> None:
        step, last = trainer.progress.step, trainer.config.steps
        self.shown["val"] = f"{val_loss:.3f}"
        point = trainer.progress.curve[-1]
        names = [name for name in ("val_loss", "dead_units", "update_ratio") if name in point]
        self.run.log_metrics({f"train/{name}": point[name] for name in names}, step=step)
        _say(f"step {step:>{len(str(last))}} of {last}: validation loss {val_loss:.4f}")
        if not self.runtime.sample_every:
            self.sample()

    def between(self, trainer: Trainer) -> None:
        step, runtime = trainer.progress.step, self.runtime
        if runtime.sample_every and step % runtime.sample_every == 0:
            self.sample()
        due = bool(runtime.checkpoint_every) and step % runtime.checkpoint_every == 0
        if runtime.checkpoint_seconds and not due:
            due = time.monotonic() - self.saved_at >= runtime.checkpoint_seconds
        # Signals and clocks are each process's own, and all of them stop and save at one step.
        due, stop = trainer.group.any([due, bool(self.stop)], trainer.device.name)
        if due or stop:
            state = trainer.state()
            if self.states:
                self.states.save(step, *state)
            self.saved_at = time.monotonic()
        if stop:
            self.bar.close()
            why = self.stop[0] if self.stop else "stopped with another process"
            raise Interrupted(f"{why}: saved after step {step}; run it again to go on")

    def sample(self) -> None:
        """Shows what the model writes by now. Draws from a generator of its own."""
        if not self.runtime.sample_tokens:
            return
        # Imported here: it changes no result, so it is no dependency of this stage.
        from gpt.generation import Sampling, generate, printable

        sampling = Sampling(max_new_tokens=self.runtime.sample_tokens, temperature=0.8)
        model = self.trainer.whole_model()
        if not self.states:
            return
        (text,) = generate(model, self.tokenizer, "", sampling, seed=self.seed)
        self.run.log_text(text.text, f"samples/step_{self.trainer.progress.step:08d}.txt")
        if not self.bar.disable:
            _say(printable(text.text) + "\n")

    def close(self) -> None:
        self.bar.close()
        seconds = time.monotonic() - self.started
        done = self.trainer.progress.step - self.first_step
        if done and seconds > 0:
            rate = done * self.a_step / seconds
            self.run.log_metrics({"time/tokens_per_second": round(rate, 1)}, step=0)


@contextmanager
def _stop_signals() -> Iterator[list[str]]:
    """A list that the first SIGTERM or SIGINT fills; the second SIGINT stops at once."""
    caught: list[str] = []

    def catch(number: int, frame: FrameType | None) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(f"stopped by {signal.Signals(number).name}")

    before = {s: signal.signal(s, catch) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _memory_errors(model: ModelConfig, config: TrainConfig) -> Iterator[None]:
    """Turns running out of memory into an error that says what to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
            raise
        raise TrainingError(
            f"out of memory; lower train.batch_size (is {config.batch_size}; "
            f"train.gradient_accumulation keeps the product), model.block_size "
            f"(is {model.block_size}) or model.n_embd (is {model.n_embd})"
        ) from None


def _say(line: str) -> None:
    """A line that does not tear the progress bar."""
    tqdm.write(line, file=sys.stdout)


if __name__ == "__main__":
    processes.main(PROJECT, "train", train, lambda params: params.resolved()[1].processes)
