"""What a stage adds to a Trainer: the curve, figures of its health, a progress bar, samples.

    TrainingCurve           losses, learning rate, gradient norm: metrics/curves/train.csv
    UpdateRatio, DeadUnits  columns of that curve, measured at each evaluation
    ProgressBar, Samples    what somebody who waits can see

None of them changes a weight. Saved states: gpt/training_state.py.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from tqdm import tqdm

from gpt.batches import BestFit
from gpt.model_source import count_parameters
from gpt.tokenizers.base import Tokenizer
from gpt.trainer import Callback, StepStats, Trainer, lr_multiplier, warmup_of

CURVE_COLUMNS = (
    *("step", "tokens", "train_loss", "val_loss", "learning_rate"),
    # Norm before clipping, and fraction of the updates that were clipped; at evaluations
    # |update| / |weights|, and the fraction of the MLPs' units that no token activates.
    *("grad_norm", "clip_rate", "update_ratio", "dead_units"),
)
# The curve has about this many points, whatever the length of the run.
CURVE_POINTS = 400
# A unit whose activation stays below this for all tokens of an evaluation is dead.
DEAD_BELOW = 1e-4


@dataclass
class TrainingCurve(Callback):
    """Means over every steps / CURVE_POINTS updates, and what an evaluation measures.

    `log` is told each new value with its step, as an MLflow run is.
    """

    log: Callable[[Mapping[str, float], int], None] = lambda *_: None
    points: list[dict[str, float]] = field(default_factory=list)
    # Since the last point:
    loss_sum: float = 0.0
    norm_sum: float = 0.0
    clipped: int = 0

    def add(self, trainer: Trainer, **values: float) -> None:
        """Adds values to the point of the trainer's step."""
        step = trainer.progress.step
        if not self.points or self.points[-1]["step"] != step:
            self.points.append({"step": step, "tokens": step * trainer.tokens_per_step})
        self.points[-1].update(values)
        self.log({f"train/{k.removeprefix('train_')}": v for k, v in values.items()}, step)

    def on_step_end(self, trainer: Trainer, stats: StepStats) -> None:
        self.loss_sum += stats.loss
        self.norm_sum += stats.grad_norm
        config, step = trainer.config, trainer.progress.step
        self.clipped += 0 < config.grad_clip < stats.grad_norm
        every = max(1, config.steps // CURVE_POINTS)
        if step % every == 0:
            learning_rate = lr_multiplier(step - 1, config) * config.learning_rate
            self.add(
                trainer,
                train_loss=round(self.loss_sum / every, 6),
                learning_rate=float(f"{learning_rate:.6g}"),
                grad_norm=round(self.norm_sum / every, 6),
                clip_rate=round(self.clipped / every, 6),
            )
            self.loss_sum, self.norm_sum, self.clipped = 0.0, 0.0, 0

    def on_evaluation_end(self, trainer: Trainer, val_loss: float) -> None:
        self.add(trainer, val_loss=round(val_loss, 6))

    def write_csv(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame(self.points, columns=list(CURVE_COLUMNS))
        table.to_csv(path, index=False, lineterminator="\n")

    def state_dict(self) -> dict[str, Any]:
        # A copy, since the curve grows on.
        return deepcopy({key: value for key, value in vars(self).items() if key != "log"})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(deepcopy(state))


@dataclass
class UpdateRatio(Callback):
    """Of the update before each evaluation, the median over the matrices of |update| / |weights|.

    About 0.001 is usual for AdamW.
    """

    curve: TrainingCurve
    ratio: float = 0.0
    _before: list[Tensor] = field(default_factory=list)
    _hook: RemovableHandle | None = None

    def on_step_begin(self, trainer: Trainer) -> None:
        def copy_matrices(*_: object) -> None:
            self._before = [matrix.clone() for matrix in _matrices(trainer)]

        if trainer.evaluation_follows():
            # Copied after the backward pass, whose activations take the most memory.
            self._hook = trainer.optimizers[0].register_step_pre_hook(copy_matrices)

    def on_step_end(self, trainer: Trainer, stats: StepStats) -> None:
        if self._hook:
            self._hook.remove()
            self.ratio = update_ratio(self._before, _matrices(trainer), trainer.full_tensor)
            self._hook, self._before = None, []

    def on_evaluation_end(self, trainer: Trainer, val_loss: float) -> None:
        if trainer.progress.step:
            self.curve.add(trainer, update_ratio=float(f"{self.ratio:.6g}"))

    def state_dict(self) -> dict[str, Any]:
        return {"ratio": self.ratio}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.ratio = state["ratio"]


def _matrices(trainer: Trainer) -> list[Tensor]:
    return [parameter.detach() for parameter in trainer.parameters if parameter.dim() > 1]


def update_ratio(
    before: list[Tensor],
    after: list[Tensor],
    full_tensor: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> float:
    """The median over the matrices of |after - before| / |before|."""
    ratios = [
        full_tensor((new - old).norm()) / full_tensor(old.norm()).clamp(min=1e-12)
        for old, new in zip(before, after, strict=True)
    ]
    return float(torch.stack(ratios).median())


@dataclass
class DeadUnits(Callback):
    """The fraction of the MLPs' units that no token of an evaluation activates."""

    curve: TrainingCurve
    _peaks: dict[nn.Module, Tensor] = field(default_factory=dict)  # of each unit, largest |x|
    _hooks: list[RemovableHandle] = field(default_factory=list)

    def on_evaluation_begin(self, trainer: Trainer) -> None:
        self._peaks = {}
        # A user's own model (model.source) may not name them: then the column stays blank.
        layers: list[nn.Module] = getattr(trainer.model, "mlp_down_projections", list)()
        self._hooks = [layer.register_forward_pre_hook(self._update_peak) for layer in layers]

    def on_evaluation_end(self, trainer: Trainer, val_loss: float) -> None:
        for hook in self._hooks:
            hook.remove()
        if self._peaks:
            peaks = trainer.all_reduce_max(torch.cat(list(self._peaks.values())))
            dead = int((peaks < DEAD_BELOW).sum()) / len(peaks)
            self.curve.add(trainer, dead_units=round(dead, 6))

    def _update_peak(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        peak = inputs[0].detach().abs().flatten(0, -2).amax(dim=0).float()
        earlier = self._peaks.get(layer)
        self._peaks[layer] = peak if earlier is None else torch.maximum(earlier, peak)


class ProgressBar(Callback):
    """A bar of the tokens seen, quiet where the output is no terminal."""

    def __init__(self, trainer: Trainer) -> None:
        self._started, self._tokens = time.monotonic(), 0
        self._shown: dict[str, str] = {}
        self._bar = tqdm(
            total=trainer.config.steps * trainer.tokens_per_step,
            initial=trainer.progress.step * trainer.tokens_per_step,
            desc="train",
            unit="tok",
            unit_scale=True,
            disable=None if trainer.is_main_process else True,
            dynamic_ncols=True,
        )
        self.visible = not self._bar.disable

    def close(self) -> None:
        self._bar.close()

    def on_step_end(self, trainer: Trainer, stats: StepStats) -> None:
        self._shown["loss"] = f"{stats.loss:.3f}"
        self._bar.set_postfix(self._shown, refresh=False)
        self._bar.update(trainer.tokens_per_step)
        self._tokens += trainer.tokens_per_step

    def on_evaluation_end(self, trainer: Trainer, val_loss: float) -> None:
        self._shown["val"] = f"{val_loss:.3f}"
        step, last = trainer.progress.step, trainer.config.steps
        tqdm.write(f"step {step:>{len(str(last))}} of {last}: validation loss {val_loss:.4f}")

    @property
    def tokens_per_second(self) -> float:
        """Since the bar was made, evaluations and samples included."""
        return self._tokens / max(time.monotonic() - self._started, 1e-9)


@dataclass
class Samples(Callback):
    """A text every `every` steps (0: at each evaluation), to see what the model has learned.

    `log` is called with it and a path, as an MLflow run's log_text; `visible` prints it too. It has
    a generator of its own, so that the training stays as it was.
    """

    tokenizer: Tokenizer
    seed: int
    max_new_tokens: int
    every: int
    log: Callable[[str, str], None]
    visible: bool

    def on_evaluation_end(self, trainer: Trainer, val_loss: float) -> None:
        if not self.every:
            self._sample(trainer)

    def on_step_end(self, trainer: Trainer, stats: StepStats) -> None:
        if self.every and trainer.progress.step % self.every == 0:
            self._sample(trainer)

    def _sample(self, trainer: Trainer) -> None:
        if not self.max_new_tokens:
            return
        # Imported here: it changes no result, so that the stage `train` does not depend on it.
        from gpt.generation import Sampling, generate, printable

        model = trainer.full_model()
        if not trainer.is_main_process:
            return
        sampling = Sampling(max_new_tokens=self.max_new_tokens, temperature=0.8)
        (sample,) = generate(model, self.tokenizer, "", sampling, seed=self.seed)
        self.log(sample.text, f"samples/step_{trainer.progress.step:08d}.txt")
        if self.visible:
            tqdm.write(printable(sample.text) + "\n")


def describe(trainer: Trainer, num_tokens: int) -> Iterator[str]:
    """What is about to be trained, in lines."""
    config, device, batches = trainer.config, trainer.device, trainer.batches
    if sources := getattr(batches, "sources", ()):
        total = sum(source.weight for source in sources)
        yield ", ".join(f"{source.corpus} {source.weight / total:.1%}" for source in sources)
    if isinstance(batches, BestFit):
        yield f"best_fit: {batches.unseen:.1%} of the tokens lie beyond a block and are not read"
    if config.init_from:
        yield f"starts from {config.init_from}: pretrained, so no competition takes it"
    if config.budget:
        yield f"{config.budget} are {config.steps:,} steps"
    if config.warmup_steps != (warmup_steps := warmup_of(config)):
        yield f"warm-up cut from {config.warmup_steps} to {warmup_steps} of {config.steps} steps"
    if config.min_learning_rate > config.learning_rate:
        yield (
            f"train.min_learning_rate = {config.min_learning_rate:g} is above the peak, "
            f"train.learning_rate = {config.learning_rate:g}, where the rate stays; lower it too"
        )
    processes = f", {config.processes} processes ({config.sharding})" * (config.processes > 1)
    yield (
        f"{count_parameters(trainer.model):,} parameters, {num_tokens:,} tokens, "
        f"{device.name} {device.dtype}, {device.threads} threads{processes}"
    )


def training_metrics(trainer: Trainer, curve: TrainingCurve) -> dict[str, Any]:
    """metrics/train.json, with the sizes as they were resolved."""
    progress, model = trainer.progress, trainer.model.config
    losses = [point["train_loss"] for point in curve.points if "train_loss" in point]
    return {
        **model.model_dump(include={"architecture", "n_layer", "n_head", "n_embd", "block_size"}),
        "packing": trainer.config.packing,
        "parameters": count_parameters(trainer.model),
        "steps": progress.step,
        "tokens": curve.points[-1]["tokens"],
        "best_step": progress.best_step,
        "best_val_loss": round(progress.best_val_loss, 6),
        "final_val_loss": round(progress.val_loss, 6),
        "final_train_loss": losses[-1] if losses else None,
    }
