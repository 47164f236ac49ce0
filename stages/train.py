"""Stage `train`: train the GPT and keep its best weights.  python -m stages.train

Reads data/tokens and the params `preset`, `model`, `train`, `seed`. Writes data/model,
metrics/train.json and metrics/curves/train.csv. Killed and started again, it resumes to the same
bits from its states under .cache/train of the main repository, which it removes at the end.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from gpt import callbacks
from gpt.batches import (
    describe_batches,
    make_batches,
    manifest,
    open_tokens,
    val_batches,
    weighted_sources,
)
from gpt.checkpoint import DeviceConfig, RunConfig, code_sha256, save_model
from gpt.config import ModelConfig, TrainConfig
from gpt.device import choose_device, is_out_of_memory
from gpt.distributed import DistributedTrainer, ProcessGroup
from gpt.errors import TrainingError
from gpt.evaluation.flops import steps_of
from gpt.files import sha256_of, write_json
from gpt.interop.gpt2_weights import pretrained_file, read_pretrained
from gpt.model_source import count_parameters, make_model
from gpt.tokenizers.base import Tokenizer, line_breaks
from gpt.tokenizers.file import load_tokenizer
from gpt.trainer import Trainer
from gpt.training_state import CheckpointManager, Stopped
from repro import processes, repository
from repro.errors import Interrupted
from repro.lockfile import code_files
from repro.signals import stop_signals
from repro.tracking.run import Run
from stages.params import CURVE, MIRROR, MODEL, PROJECT, TOKENS, TRAIN_METRICS, Params

TOKENIZER = TOKENS / "tokenizer.json"


def train(params: Params, run: Run) -> None:
    print(f"preset {params.preset}" + f", overridden: {params.changes}" * bool(params.changes))
    (model_config, config, _), runtime = params.resolved(), params.runtime
    with (
        _explained_errors(model_config, config),
        processes.process_group(config.device, runtime.timeout_seconds) as (rank, size),
        stop_signals() as stop,
    ):
        tokenizer = load_tokenizer(TOKENIZER)
        group = ProcessGroup(rank, size) if size > 1 else None
        trainer, run_config = build_trainer(params, tokenizer, group)
        folder = repository.scratch() / "train" / run_config.fingerprint()
        intervals = runtime.checkpoint_every, runtime.checkpoint_seconds
        curve = callbacks.TrainingCurve(log=run.log_metrics)
        trainer.callbacks = [callbacks.DeadUnits(curve), callbacks.UpdateRatio(curve), curve]
        with CheckpointManager(trainer, folder, run_config, *intervals, stop) as checkpoints:
            checkpoints.restore_latest()
            with callbacks.ProgressBar(trainer) as bar:
                sampling = params.seed, runtime.sample_tokens, runtime.sample_every
                samples = callbacks.Samples(tokenizer, *sampling, run.log_text, bar.visible)
                trainer.callbacks += [bar, samples, checkpoints]
                trainer.run()
            weights = trainer.kept_weights()
            if trainer.is_main_process:
                save_model(MODEL, weights, TOKENIZER, run_config)
                curve.write_csv(CURVE)
                metrics = callbacks.training_metrics(trainer, curve)
                write_json(TRAIN_METRICS, {"preset": params.preset, **metrics})
                run.log_metrics({"time/tokens_per_second": bar.tokens_per_second}, step=0)
                print_findings(trainer, curve)
                if not runtime.keep_scratch:
                    checkpoints.remove()


def build_trainer(
    params: Params, tokenizer: Tokenizer, group: ProcessGroup | None
) -> tuple[Trainer, RunConfig]:
    """Model, batches and optimizers as params.yaml says, and what the weights will depend on."""
    model_config, config, _ = params.resolved()
    device = choose_device(config.device, config.dtype, config.threads)
    device.apply()
    vocab_size, block_size = tokenizer.vocab_size, model_config.block_size
    new_model = partial(make_model, model_config, vocab_size, params.seed, line_breaks(tokenizer))
    model = new_model()
    resolved = {
        "steps": steps_of(model_config, config, vocab_size, count_parameters(model)),
        "processes": group.size if group else 1,
        **{"device": device.name, "dtype": device.dtype, "threads": device.threads},
    }
    config = config.model_copy(update=resolved)
    pretrained_sha256 = ""
    if config.init_from:
        cache, mirror = repository.scratch() / "pretrained", repository.location(MIRROR)
        pretrained = pretrained_file(config.init_from, repository.root(), cache, mirror)
        model.load_state_dict(read_pretrained(pretrained, model_config, vocab_size))
        pretrained_sha256 = sha256_of(pretrained)
    tokens = manifest(TOKENS)
    train_ids, val_ids = (open_tokens(TOKENS, split, vocab_size) for split in ("train", "val"))
    batches = make_batches(
        train_ids, weighted_sources(tokens), config, block_size, params.seed, tokenizer.bos
    )
    val = val_batches(
        val_ids, block_size=block_size, tokens=config.eval_tokens, batch_size=config.batch_size
    )
    new_trainer = partial(DistributedTrainer, group, new_model) if group else Trainer
    trainer = new_trainer(model, batches, val, config, device, params.seed)
    print("\n".join((*describe_batches(batches), *callbacks.describe(trainer, len(train_ids)))))
    code = code_files("train", {"model": {"source": model_config.source}})
    hashes = {split: metadata["sha256"] for split, metadata in tokens["splits"].items()}
    return trainer, RunConfig(
        model=model_config,
        vocab_size=vocab_size,
        train=config,
        seed=params.seed,
        data={"corpus": tokens["corpus"], **hashes},
        code_sha256=code_sha256(file for file in code if file.parts[0] not in ("stages", "repro")),
        device=DeviceConfig(**device.as_dict()),
        tokenizer_sha256=sha256_of(TOKENIZER),
        pretrained_sha256=pretrained_sha256,
    )


def print_findings(trainer: Trainer, curve: callbacks.TrainingCurve) -> None:
    """What the curve shows, in words; `evaluate` writes them into its metrics."""
    # Imported here: its words change no result, so that this stage does not depend on them.
    from gpt.evaluation.diagnostics import diagnose

    if trainer.progress.stopped_early:
        print(f"stopped early at step {trainer.progress.step}")
    for finding in diagnose(curve.points, math.log(trainer.model.vocab_size)):
        print(finding)


@contextmanager
def _explained_errors(model: ModelConfig, config: TrainConfig) -> Iterator[None]:
    try:
        yield
    except Stopped as stopped:
        raise Interrupted(str(stopped)) from None
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):  # "illegal memory access" is a bug, not a large batch
            raise
        raise TrainingError(
            f"out of memory with train.batch_size = {config.batch_size}; halve it and double "
            f"train.gradient_accumulation (now {config.gradient_accumulation}) for as many tokens "
            f"per update, or lower model.n_embd (now {model.n_embd})"
        ) from error


if __name__ == "__main__":
    processes.main(PROJECT, "train", train, lambda params: params.resolved()[1].processes)
