"""The training loop: one GPT, its optimizers and a source of batches.

    Trainer.train_step  one optimizer update; read it with gpt/model.py, which computes the logits
    Trainer.run         steps and evaluations until the last step, or until patience runs out
    Trainer.state       what a killed training needs to resume bit for bit
    lr_multiplier       the learning rate's schedule
    Callback            what a stage adds: the curve, samples, saved states (gpt/callbacks.py)

Batches are functions of (seed, step, micro-step), and so are dropout masks, except where several
processes divide a micro-batch. Nothing else is random: an evaluation, a saved state or a sample
between two updates leaves every later bit as it was.

Not here: files, params, tracking, signals (stages/train.py); several processes, which train with a
DistributedTrainer (gpt/distributed.py).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gpt.batches import BatchSource
from gpt.config import TrainConfig
from gpt.device import DTYPES, Device
from gpt.errors import ParamsError, TrainingError
from gpt.model import GPT, cross_entropy
from gpt.optim import Muon, make_optimizers

# The last fraction of the steps after the warm-up, in which `wsd` decays.
WSD_DECAY = 0.2


@dataclass(frozen=True)
class StepStats:
    """What an update reports: its loss in nats per token, the gradients' norm before clipping."""

    loss: float
    grad_norm: float


@dataclass
class Progress:
    """How far a training is; goes through JSON."""

    step: int = 0
    last_eval_step: int = -1
    val_loss: float = math.inf
    best_step: int = 0
    best_val_loss: float = math.inf
    evals_without_improvement: int = 0
    stopped_early: bool = False


class Callback:
    """What a Trainer calls between two updates; a subclass overrides what it needs.

    It must not change the model or the gradients. `state_dict` is saved with the training, through
    JSON, and given back to `load_state_dict` where that resumes.
    """

    def on_step_begin(self, trainer: "Trainer") -> None: ...

    def on_step_end(self, trainer: "Trainer", stats: StepStats) -> None: ...

    def on_evaluation_begin(self, trainer: "Trainer") -> None: ...

    def on_evaluation_end(self, trainer: "Trainer", val_loss: float) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Trainer:
    """Trains `model` in place and keeps the weights with the best validation loss."""

    is_main_process = True

    def __init__(
        self,
        model: GPT,
        batches: BatchSource,
        val_batches: Sequence[tuple[Tensor, Tensor]],
        config: TrainConfig,
        device: Device,
        seed: int,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        if config.recompute and model.config.dropout and device.name == "mps":
            raise ParamsError(
                "train.recompute = true: on mps PyTorch would drop other units when it computes "
                "activations again, so gradients would be wrong; set model.dropout=0"
            )
        self.model = model.to(device.name)
        self.model.recompute = config.recompute
        self.config, self.device, self.seed = config, device, seed
        self.batches, self.val_batches = batches, val_batches
        self.callbacks = list(callbacks)
        self.progress = Progress()
        self.micro_steps = range(config.gradient_accumulation)
        self.sequences = slice(None)  # those of a micro-batch that this process computes
        self.wrapped_model = self._wrap_model()
        self.parameters = list(self.model.parameters())
        self.optimizers = make_optimizers(
            model, config, bfloat16=device.dtype == "bfloat16", muon=self._muon()
        )
        self._device_type, self._dtype = device.name.partition(":")[0], DTYPES[device.dtype]
        self._mixed_precision = device.dtype != "float32"
        self._best = self.weights() if config.keep == "best" else {}

    @property
    def tokens_per_step(self) -> int:
        sequences = self.config.batch_size * self.config.gradient_accumulation
        return sequences * self.model.config.block_size

    # --- one update -------------------------------------------------------------------------------

    def train_step(self, step: int) -> StepStats:
        """One optimizer update.

        Raises TrainingError, before any weight moves, if the loss or a gradient is not finite.
        """
        loss = 0.0
        for micro_step in self.micro_steps:
            inputs_bt, targets_bt = self._micro_batch(step, micro_step)
            with torch.autocast(self._device_type, self._dtype, enabled=self._mixed_precision):
                logits_btv = self.wrapped_model(inputs_bt)
            micro_loss = cross_entropy(logits_btv, targets_bt) / len(self.micro_steps)
            micro_loss.backward()  # type: ignore[no-untyped-call]
            loss += micro_loss.item()
        grad_norm = nn.utils.clip_grad_norm_(self.parameters, self.config.grad_clip or math.inf)
        stats = self._check_finite(step, loss, grad_norm)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr_multiplier(step, self.config) * group["peak_lr"]
            optimizer.step()
            optimizer.zero_grad()
        return stats

    def _micro_batch(self, step: int, micro_step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets (b, t) on the device; seeds the dropout masks of the forward pass."""
        if self.model.config.dropout:
            # Processes that divide a micro-batch seed masks of their own, by their first sequence.
            stream = micro_step + self.config.gradient_accumulation * (self.sequences.start or 0)
            torch.manual_seed((self.seed * 1_000_003 + step + 2**40 * stream) % 2**63)
        inputs_bt, targets_bt = self.batches.batch(step, micro_step)
        inputs_bt, targets_bt = inputs_bt[self.sequences], targets_bt[self.sequences]
        return inputs_bt.to(self.device.name), targets_bt.to(self.device.name)

    def _check_finite(self, step: int, loss: float, grad_norm: Tensor) -> StepStats:
        """What the update reports. Raises TrainingError if the loss or the norm is not finite."""
        norm = float(grad_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(
                f"step {step}: loss {loss}, gradient norm {norm}: not finite, so nothing was "
                f"updated; lower train.learning_rate (is {self.config.learning_rate})"
            )
        return StepStats(loss, norm)

    # --- the loop ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Trains from `progress.step` to the last step, or until patience runs out.

        Raises TrainingError at a loss or gradient that is not finite.
        """
        progress, every = self.progress, self.config.eval_every
        self.model.train()
        while progress.step < self.config.steps and not progress.stopped_early:
            if every and progress.step % every == 0 and progress.last_eval_step != progress.step:
                self.evaluate()
                if progress.stopped_early:
                    break
            for callback in self.callbacks:
                callback.on_step_begin(self)
            stats = self.train_step(progress.step)
            progress.step += 1
            for callback in self.callbacks:
                callback.on_step_end(self, stats)
        if progress.last_eval_step != progress.step:
            self.evaluate()

    def evaluation_follows(self) -> bool:
        """Whether the model is evaluated after the next update."""
        step, every = self.progress.step + 1, self.config.eval_every
        return step == self.config.steps or (every > 0 and step % every == 0)

    def evaluate(self) -> None:
        """Scores the validation batches, keeps the best weights, counts towards patience."""
        progress, config = self.progress, self.config
        for callback in self.callbacks:
            callback.on_evaluation_begin(self)
        val_loss = self.validation_loss()
        if not math.isfinite(val_loss):
            raise TrainingError(
                f"step {progress.step}: validation loss {val_loss} is not finite; "
                f"lower train.learning_rate (is {config.learning_rate})"
            )
        progress.val_loss, progress.last_eval_step = val_loss, progress.step
        if val_loss < progress.best_val_loss:
            progress.best_val_loss, progress.best_step = val_loss, progress.step
            progress.evals_without_improvement = 0
            if config.keep == "best":
                self._best = self.weights()
        else:
            progress.evals_without_improvement += 1
            out_of_patience = 0 < config.patience <= progress.evals_without_improvement
            progress.stopped_early = out_of_patience and progress.step < config.steps
        for callback in self.callbacks:
            callback.on_evaluation_end(self, val_loss)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean loss in nats per token over the validation batches, always the same ones."""
        self.model.eval()
        sums = self._validation_loss_sums()
        self.model.train()
        return math.fsum(sums) / sum(targets_bt.numel() for _, targets_bt in self.val_batches)

    def _validation_loss_sums(self) -> list[float]:
        return [self._loss_sum(*batch) for batch in self.val_batches]

    def _loss_sum(self, inputs_bt: Tensor, targets_bt: Tensor) -> float:
        with torch.autocast(self._device_type, self._dtype, enabled=self._mixed_precision):
            logits_btv = self.wrapped_model(inputs_bt.to(self.device.name))
        mean = cross_entropy(logits_btv, targets_bt.to(self.device.name)).item()
        return mean * targets_bt.numel()

    # --- weights, and the state to resume from ----------------------------------------------------

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights on the CPU; of several processes all have to call it."""
        return self._cpu_copies(self.model.state_dict())

    def kept_weights(self) -> dict[str, Tensor]:
        """The weights of the best evaluation or of the last step, as train.keep says."""
        return self._best if self.config.keep == "best" else self.weights()

    def full_model(self) -> GPT:
        """The model, to generate with; of several processes all have to call it."""
        return self.model

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything `load_state` needs to resume to the same bits, as tensors and as JSON."""
        tensors = {f"model.{name}": tensor for name, tensor in self.weights().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self._best.items()}
        for number, optimizer in enumerate(self.optimizers):
            for index, moments in optimizer.state_dict()["state"].items():
                names = {f"optimizer.{number}.{index}.{name}": moments[name] for name in moments}
                tensors |= self._cpu_copies(names)
        progress = asdict(self.progress)
        for key in ("val_loss", "best_val_loss"):  # JSON has no infinity
            progress[key] = progress[key] if math.isfinite(progress[key]) else None
        states = {type(callback).__name__: callback.state_dict() for callback in self.callbacks}
        return tensors, {"progress": progress, "callbacks": states}

    def load_state(self, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Resumes from what `state` returned, the same in every process."""
        sections: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            section, rest = name.split(".", 1)
            sections[section][rest] = tensor
        own = self.model.state_dict()
        self.model.load_state_dict(
            {name: self.shard_like(t, own[name]) for name, t in sections["model"].items()}
        )
        self._best = sections["best"] if self.is_main_process else {}
        self._load_moments(sections["optimizer"])
        progress = metadata["progress"]
        progress = {key: math.inf if value is None else value for key, value in progress.items()}
        self.progress = Progress(**progress)
        for callback in self.callbacks:
            if state := metadata["callbacks"].get(type(callback).__name__):
                callback.load_state_dict(state)

    def _load_moments(self, tensors: dict[str, Tensor]) -> None:
        # In the order in which an optimizer's state counts its parameters.
        parameters = [
            [parameter for group in optimizer.param_groups for parameter in group["params"]]
            for optimizer in self.optimizers
        ]
        states: list[dict[int, dict[str, Tensor]]] = [{} for _ in self.optimizers]
        for name, tensor in tensors.items():
            number, index, moment = name.split(".")
            parameter = parameters[int(number)][int(index)]
            if tensor.shape == parameter.shape:
                tensor = self.shard_like(tensor, parameter)
            states[int(number)].setdefault(int(index), {})[moment] = tensor
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

    def _cpu_copies(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}

    # --- overridden by DistributedTrainer: one process has nothing to wrap, gather or send --------

    def _wrap_model(self) -> nn.Module:
        return self.model

    def _muon(self) -> Callable[..., Muon]:
        return Muon

    def full_tensor(self, tensor: Tensor) -> Tensor:
        return tensor

    def shard_like(self, tensor: Tensor, target: Tensor) -> Tensor:
        return tensor

    def all_reduce_max(self, tensor: Tensor) -> Tensor:
        return tensor

    def any_process(self, flags: list[bool]) -> list[bool]:
        return flags

    def broadcast(
        self, state: tuple[dict[str, Tensor], dict[str, Any]] | None
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        return state


def warmup_of(config: TrainConfig) -> int:
    """Steps of the warm-up: of a run that would be nothing else, a tenth."""
    return config.warmup_steps if config.warmup_steps < config.steps else config.steps // 10


def lr_multiplier(step: int, config: TrainConfig) -> float:
    """Learning rate at `step` as a fraction of its peak, in (0, 1].

    Linear warm-up, (step + 1) / (warmup_steps + 1), so that step 0 already learns; of a run that
    is no longer than its warm-up, a tenth. Then `config.schedule`, down to min_learning_rate /
    learning_rate, a ratio that Muon's rate shares:

        cosine        half a cosine (Loshchilov & Hutter 2017), as in nanoGPT
        linear        a straight line
        wsd           the peak, and a straight line over the last fifth (Hu et al. 2024)
        inverse_sqrt  as 1 / sqrt(step) (Vaswani et al. 2017): knows nothing of the end of the run

    All but inverse_sqrt would reach the minimum at step == steps, one after the last update.
    """
    warmup_steps = warmup_of(config)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    # A peak below the minimum is where the rate stays after the warm-up.
    minimum = min(1.0, config.min_learning_rate / config.learning_rate)
    if config.schedule == "inverse_sqrt":
        return max(minimum, math.sqrt((warmup_steps + 1) / (step + 1)))
    progress = min(1.0, (step - warmup_steps) / max(1, config.steps - warmup_steps))
    multiplier = {
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
        "linear": 1.0 - progress,
        "wsd": min(1.0, (1.0 - progress) / WSD_DECAY),
    }[config.schedule]
    return minimum + (1.0 - minimum) * multiplier
