"""Stage `train`: train the GPT and keep its best weights.  python -m stages.train

Reads data/tokens and the params `preset`, `model`, `train`, `seed`. Writes data/model,
metrics/train.json and metrics/curves/train.csv. Killed and started again, it resumes bit for bit.
"""

import math
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial

from gpt import batches, callbacks
from gpt.checkpoint import RunConfig, save_model
from gpt.device import choose_device, device_errors_explained
from gpt.distributed import DistributedTrainer, ProcessGroup
from gpt.evaluation.flops import steps_of
from gpt.files import write_json
from gpt.interop.pretrained import pretrained_file, read_pretrained
from gpt.model_source import count_parameters, make_model
from gpt.tokenizers.base import Tokenizer, line_breaks
from gpt.tokenizers.file import load_tokenizer
from gpt.trainer import Trainer
from gpt.training_state import CheckpointManager, CheckpointStore, Stopped, run_config_of
from repro import processes, repository
from repro.errors import Interrupted
from repro.lockfile import code_files
from repro.signals import stop_signals
from repro.tracking.run import Run
from stages.params import CURVE, MIRROR, MODEL, PROJECT, TOKENIZER, TOKENS, TRAIN_METRICS, Params


def train(params: Params, run: Run) -> None:
    print(f"preset {params.preset}" + f", overridden: {params.changes}" * bool(params.changes))
    (model_config, config, _), runtime = params.resolved(), params.runtime
    with (
        device_errors_explained(model_config, config),
        processes.process_group(config.device, runtime.timeout_seconds) as (rank, size),
        stop_signals() as stop,
        a_stop_interrupts(),
    ):
        tokenizer = load_tokenizer(TOKENIZER)
        params.check_prompt(tokenizer.encode)  # before the training, not after it
        group = ProcessGroup(rank, size) if size > 1 else None
        trainer, run_config = build_trainer(params, tokenizer, group)
        curve = callbacks.TrainingCurve(log=run.log_metrics)
        trainer.callbacks = [callbacks.DeadUnits(curve), callbacks.UpdateRatio(curve), curve]
        folder = repository.scratch() / "train" / run_config.fingerprint()
        intervals = runtime.checkpoint_every, runtime.checkpoint_seconds
        # Several processes would lose each other while one of them waits.
        waits = None if group else stop
        store = CheckpointStore(folder, stop=waits) if trainer.is_main_process else None
        with store or nullcontext():
            checkpoints = CheckpointManager(trainer, store, run_config, *intervals, stop)
            checkpoints.restore_latest()
            with closing(callbacks.ProgressBar(trainer)) as bar:
                sampling = params.seed, runtime.sample_tokens, runtime.sample_every
                samples = callbacks.Samples(tokenizer, *sampling, run.log_text, bar.visible)
                trainer.callbacks += [bar, samples, checkpoints]
                trainer.run()
                if speed := bar.tokens_per_second:
                    run.log_metrics({"time/tokens_per_second": round(speed, 1)}, step=0)
            weights = trainer.kept_weights()
            if store:
                save_model(MODEL, weights, TOKENIZER, run_config)
                curve.write_csv(CURVE)
                metrics = callbacks.training_metrics(trainer, curve)
                write_json(TRAIN_METRICS, {"preset": params.preset, **metrics})
                print_findings(trainer, curve)
                if not runtime.keep_scratch:
                    store.remove()


@contextmanager
def a_stop_interrupts() -> Iterator[None]:
    """Whatever was asked to stop, and may be run again, ends the stage with the code for it."""
    try:
        yield
    except Stopped as stopped:
        raise Interrupted(str(stopped)) from None


def build_trainer(
    params: Params, tokenizer: Tokenizer, group: ProcessGroup | None
) -> tuple[Trainer, RunConfig]:
    """Model, batches and optimizers as params.yaml says, and what the weights will depend on."""
    model_config, config, _ = params.resolved()
    num_processes = group.size if group else 1
    device = choose_device(config.device, config.dtype, config.threads, num_processes)
    device.apply()
    vocab_size, block_size = tokenizer.vocab_size, model_config.block_size
    new_model = partial(make_model, model_config, vocab_size, params.seed, line_breaks(tokenizer))
    model, pretrained = new_model(), None
    if config.init_from:
        cache, mirror = repository.scratch() / "pretrained", repository.location(MIRROR)
        pretrained = pretrained_file(config.init_from, repository.root(), cache, mirror)
        model.load_state_dict(read_pretrained(pretrained, model_config, tokenizer))
    resolved = {
        "steps": steps_of(model_config, config, vocab_size, count_parameters(model)),
        "processes": num_processes,
        **{"device": device.name, "dtype": device.dtype, "threads": device.threads},
    }
    config = config.model_copy(update=resolved)
    tokens = batches.manifest(TOKENS)
    train_ids = batches.open_tokens(TOKENS, "train", vocab_size)
    val_ids = batches.open_tokens(TOKENS, "val", vocab_size)
    sources, shape = batches.weighted_sources(tokens), (block_size, params.seed, tokenizer.bos)
    train_batches = batches.make_batches(train_ids, sources, config, *shape)
    evaluated = {"tokens": config.eval_tokens, "batch_size": config.batch_size}
    val_batches = batches.val_batches(val_ids, block_size=block_size, **evaluated)
    new_trainer = partial(DistributedTrainer, group, new_model) if group else Trainer
    trainer = new_trainer(model, train_batches, val_batches, config, device, params.seed)
    print(*callbacks.describe(trainer, len(train_ids)), sep="\n")
    code = code_files("train", {"model": {"source": model_config.source}})
    library = [file for file in code if file.parts[0] not in ("stages", "repro")]
    return trainer, run_config_of(trainer, tokens, TOKENIZER, library, pretrained)


def print_findings(trainer: Trainer, curve: callbacks.TrainingCurve) -> None:
    """What the curve shows, in words; `evaluate` writes them into its metrics."""
    # Imported here: its words change no result, so that this stage does not depend on them.
    from gpt.evaluation.diagnostics import diagnose

    if trainer.progress.stopped_early:
        print(f"stopped early at step {trainer.progress.step}")
    for finding in diagnose(curve.points, math.log(trainer.model.vocab_size)):
        print(finding)


if __name__ == "__main__":
    processes.main(PROJECT, "train", train, lambda params: params.resolved()[1].processes)
