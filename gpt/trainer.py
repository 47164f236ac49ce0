"""The training loop: batch, forward, backward, clip, update; look at the validation split; keep.

Whatever happens between two updates (a look at the validation split, a saved state, a printed
sample) leaves the next update's bits as they were: batches and dropout masks are functions of
(seed, step), and nothing else is random.

It does not know files, params, tracking or signals: a stage hands it callbacks.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gpt.batches import Batches, EpochBatches
from gpt.config import TrainConfig
from gpt.device import Device
from gpt.distributed import Group, in_parts, like, load_whole, whole
from gpt.errors import TrainingError
from gpt.model import GPT, cross_entropy
from gpt.model_source import make_model
from gpt.optim import make_optimizers, schedule, set_learning_rate
from gpt.packing import PackedBatches

CURVE_COLUMNS = (
    *("step", "tokens", "train_loss", "val_loss", "learning_rate"),
    # Health: norm before clipping, share of updates clipped; and at looks, how far an update goes
    # for the size of the weights, and which share of the MLPs' units answers to nothing.
    *("grad_norm", "clip_rate", "update_ratio", "dead_units"),
)
# The curve has about so many points, whatever the length of the run.
CURVE_POINTS = 400
# A unit whose activation stays below this for all tokens of a look is dead.
DEAD = 1e-4

Windows = list[tuple[Tensor, Tensor]]


@dataclass
class Callbacks:
    """What a stage wants to be told of, or asked; each is called between two updates."""

    on_update: Callable[[float], None] = lambda loss: None
    on_point: Callable[[dict[str, float]], None] = lambda point: None
    on_look: Callable[["Trainer", float], None] = lambda trainer, val_loss: None
    between: Callable[["Trainer"], None] = lambda trainer: None


@dataclass
class Progress:
    """Where a training stands, beside weights and optimizer. All of it goes through JSON."""

    step: int = 0
    looked_at: int = -1
    val_loss: float = math.inf
    best_step: int = 0
    best_val_loss: float = math.inf
    looks_without_gain: int = 0
    stopped_early: bool = False
    # Sums since the curve's last point.
    loss_sum: float = 0.0
    norm_sum: float = 0.0
    clipped: int = 0
    # Of the update before a look; 0 as long as there was none.
    update_ratio: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """Trains `model` in place and holds on to the weights that validated best."""

    def __init__(
        self,
        model: GPT,
        batches: Batches | EpochBatches | PackedBatches,
        val_windows: Windows,
        config: TrainConfig,
        device: Device,
        seed: int,
        group: Group | None = None,
    ) -> None:
        self.model = model.to(device.name)
        self.config = config
        self.device = device
        self.group = group or Group()
        self.progress = Progress()
        self._batches = batches
        self._share = self.group.share(config.gradient_accumulation, config.batch_size)
        self._val_windows = val_windows
        self._seed = seed
        model.recompute = config.recompute
        blocks = getattr(model, "blocks", ())  # a learner's model may call them otherwise
        self._called = self.group.spread(self.model, config.sharding, blocks)
        self._parameters = list(self.model.parameters())
        self._optimizers = make_optimizers(
            self.model, config, device.name, self.group, bfloat16=device.dtype == "bfloat16"
        )
        # In the order in which an optimizer's state counts them.
        self._trained = [
            [parameter for group in optimizer.param_groups for parameter in group["params"]]
            for optimizer in self._optimizers
        ]
        self._best = self.weights()
        self._point_every = max(1, config.steps // CURVE_POINTS)

    # --- the loop ---------------------------------------------------------------------------------

    def run(self, callbacks: Callbacks | None = None) -> None:
        """Trains from where `progress` stands to the last step, or until patience runs out.

        Raises TrainingError, before the update, at a loss or gradient that is not finite.
        """
        tell = callbacks or Callbacks()
        progress, every = self.progress, self.config.eval_every
        self.model.train()
        while progress.step < self.config.steps and not progress.stopped_early:
            if every and progress.step % every == 0 and progress.looked_at != progress.step:
                self._look(tell)
                if progress.stopped_early:
                    break
            tell.on_update(self._update(tell))
            tell.between(self)
        if progress.looked_at != progress.step:
            self._look(tell)

    def kept_weights(self) -> dict[str, Tensor]:
        """The weights of the best look, or of the last step, as `config.keep` says.

        Of several processes all have to ask, and the first is given them.
        """
        return self._best if self.config.keep == "best" else self.weights()

    def _update(self, tell: Callbacks) -> float:
        """One optimizer update; returns its loss in nats a token."""
        progress, step = self.progress, self.progress.step
        share_of_peak = schedule(step, self.config)
        set_learning_rate(self._optimizers, share_of_peak)
        passes, rows = self._share.passes, self._share.rows
        loss_value = 0.0
        for part in passes:
            self._set_dropout(step, part)
            inputs_bt, targets_bt = self._batches.batch(step, part)
            with self.group.gradients(self._called, last=part == passes[-1]):
                loss = self._loss(inputs_bt[rows], targets_bt[rows]) / len(passes)
                loss.backward()  # type: ignore[no-untyped-call]
            loss_value += loss.item()
        loss_value = self.group.mean(loss_value, self.device.name)
        norm = self._clip()
        if not (math.isfinite(loss_value) and math.isfinite(norm)):
            raise TrainingError(
                f"step {step}: loss {loss_value}, gradient norm {norm}: not finite, so nothing was "
                f"updated; lower train.learning_rate (is {self.config.learning_rate})"
            )
        before = self._matrices() if self._look_follows() else None
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if before is not None:
            progress.update_ratio = _update_ratio(before, self._matrices())

        progress.step += 1
        progress.loss_sum += loss_value
        progress.norm_sum += norm
        progress.clipped += 0 < self.config.grad_clip < norm
        if progress.step % self._point_every == 0:
            point = self._point()
            point["train_loss"] = round(progress.loss_sum / self._point_every, 6)
            point["learning_rate"] = float(f"{share_of_peak * self.config.learning_rate:.6g}")
            point["grad_norm"] = round(progress.norm_sum / self._point_every, 6)
            point["clip_rate"] = round(progress.clipped / self._point_every, 6)
            progress.loss_sum = progress.norm_sum = 0.0
            progress.clipped = 0
            tell.on_point(point)
        return loss_value

    def _set_dropout(self, step: int, part: int) -> None:
        """Makes the dropout masks of a pass a function of (seed, step, pass), with no state."""
        if self.model.config.dropout:
            # Rows of one pass that lie in several processes must not all be masked alike.
            place = part + self.config.gradient_accumulation * (self._share.rows.start or 0)
            seed = self._seed * 1_000_003 + step + 2**40 * place
            torch.manual_seed(seed % 2**63)

    def _loss(self, inputs_bt: Tensor, targets_bt: Tensor) -> Tensor:
        name = self.device.name
        inputs_bt, targets_bt = inputs_bt.to(name), targets_bt.to(name)
        with self.device.autocast:
            logits_btv = self._called(inputs_bt)
        return cross_entropy(logits_btv, targets_bt)

    def _clip(self) -> float:
        """Clips the gradients to `grad_clip` (0: not at all); returns their norm before."""
        limit = self.config.grad_clip or math.inf
        return float(whole(torch.nn.utils.clip_grad_norm_(self._parameters, limit)))

    def _look_follows(self) -> bool:
        """Whether the validation split is looked at after the update to come."""
        step, every = self.progress.step + 1, self.config.eval_every
        return step == self.config.steps or (every > 0 and step % every == 0)

    def _matrices(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self._parameters if parameter.dim() > 1]

    # --- looking at the validation split ----------------------------------------------------------

    def _look(self, tell: Callbacks) -> None:
        progress = self.progress
        with _PeakActivations(self.model) as peaks:
            val_loss = self.validation_loss()
        dead_units = peaks.dead_share(self.group)
        if not math.isfinite(val_loss):
            raise TrainingError(
                f"step {progress.step}: validation loss {val_loss} is not finite; "
                f"lower train.learning_rate (is {self.config.learning_rate})"
            )
        progress.val_loss, progress.looked_at = val_loss, progress.step
        if progress.val_loss < progress.best_val_loss:
            progress.best_val_loss, progress.best_step = progress.val_loss, progress.step
            progress.looks_without_gain = 0
            self._best = self.weights()
        else:
            progress.looks_without_gain += 1
            patience = self.config.patience
            progress.stopped_early = bool(patience) and progress.looks_without_gain >= patience
        point = self._point()
        point["val_loss"] = round(progress.val_loss, 6)
        point["dead_units"] = round(dead_units, 6)
        if progress.step:
            point["update_ratio"] = float(f"{progress.update_ratio:.6g}")
        tell.on_look(self, progress.val_loss)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean loss in nats a token over the validation windows, always the same ones."""
        self.model.eval()
        # Each process does some of the windows; a sum with zeros is exact, and its order stays.
        totals = [0.0] * len(self._val_windows)
        for number in range(self.group.rank, self._rounds(), self.group.size):
            inputs_bt, targets_bt = self._val_windows[number % len(totals)]
            total = self._loss(inputs_bt, targets_bt).item() * targets_bt.numel()
            if number < len(totals):
                totals[number] = total
        self.model.train()
        totals = self.group.sum(totals, self.device.name)
        return math.fsum(totals) / sum(targets_bt.numel() for _, targets_bt in self._val_windows)

    def _rounds(self) -> int:
        """The windows, and so many more that every process does equally many: FSDP needs that."""
        return math.ceil(len(self._val_windows) / self.group.size) * self.group.size

    def _point(self) -> dict[str, float]:
        """The curve's point at this step, a new one if there is none yet."""
        progress, config = self.progress, self.config
        if not progress.curve or progress.curve[-1]["step"] != progress.step:
            a_step = config.batch_size * config.gradient_accumulation * self.model.config.block_size
            progress.curve.append({"step": progress.step, "tokens": progress.step * a_step})
        return progress.curve[-1]

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights as they are, on the CPU; as `kept_weights` of several processes."""
        return self._copies(self.model.state_dict())

    def whole_model(self) -> GPT:
        """The model, to write with; of several processes all have to ask, and the first may use it.

        Where it lies in parts that is a copy of it.
        """
        if not in_parts(self._parameters[0]):
            return self.model
        weights = self.weights()
        if not self.group.first:
            return self.model
        line_breaks = self.model.line_position.line_breaks if self.model.line_position else ()
        model = make_model(self.model.config, self.model.vocab_size, line_breaks=line_breaks)
        model.load_state_dict(weights)
        return model.to(self.device.name)

    def _copies(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        copies = {}
        for name, tensor in tensors.items():
            full = whole(tensor.detach())
            if self.group.first:
                copies[name] = full.to("cpu", copy=True)
        return copies

    # --- state to go on from ----------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything `load_state` needs to go on to the same bits, as tensors and as JSON.

        Of several processes all have to ask, and the first is given the tensors.
        """
        tensors = {f"model.{name}": tensor for name, tensor in self.weights().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self._best.items()}
        for number, optimizer in enumerate(self._optimizers):
            for index, moments in optimizer.state_dict()["state"].items():
                names = {f"optimizer.{number}.{index}.{name}": moments[name] for name in moments}
                tensors |= self._copies(names)
        facts = asdict(self.progress)  # copies the curve, which goes on growing
        for key in ("val_loss", "best_val_loss"):  # JSON has no infinity
            facts[key] = facts[key] if math.isfinite(facts[key]) else None
        return tensors, facts

    def load_state(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Goes on from what `state` gave, the same in every process."""
        sections: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            section, rest = name.split(".", 1)
            sections[section][rest] = tensor
        load_whole(self.model, sections["model"])
        self._best = sections["best"] if self.group.first else {}
        moments: list[dict[int, dict[str, Tensor]]] = [{} for _ in self._optimizers]
        for name, tensor in sections["optimizer"].items():
            number, index, moment = name.split(".")
            parameter = self._trained[int(number)][int(index)]
            if tensor.shape == parameter.shape:
                tensor = like(tensor, parameter)
            moments[int(number)].setdefault(int(index), {})[moment] = tensor
        for optimizer, state in zip(self._optimizers, moments, strict=True):
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        facts = {key: math.inf if value is None else value for key, value in facts.items()}
        self.progress = Progress(**facts)


def _update_ratio(before: list[Tensor], after: list[Tensor]) -> float:
    """The median over the matrices of |update| / |weights|; about 0.001 is usual for AdamW."""
    ratios = [
        whole((new - old).norm()) / whole(old.norm()).clamp(min=1e-12)
        for old, new in zip(before, after, strict=True)
    ]
    return float(torch.stack(ratios).median())


class _PeakActivations:
    """While it is entered, the largest absolute activation of each unit of the model's MLPs."""

    def __init__(self, model: GPT) -> None:
        # What goes into an MLP's second layer is what its units make of a token.
        self._layers = [m for name, m in model.named_modules() if name.endswith("mlp.down")]
        self._peaks: dict[nn.Module, Tensor] = {}
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        self._hooks = [layer.register_forward_pre_hook(self._see) for layer in self._layers]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _see(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        peak = inputs[0].detach().abs().flatten(0, -2).amax(dim=0).float()
        seen = self._peaks.get(layer)
        self._peaks[layer] = peak if seen is None else torch.maximum(seen, peak)

    def dead_share(self, group: Group) -> float:
        """The share of units that no token of a look made answer; 0 where none was looked at."""
        found = [self._peaks[layer] for layer in self._layers if layer in self._peaks]
        if not found:
            return 0.0
        peaks = group.largest(torch.cat(found))
        return int((peaks < DEAD).sum()) / len(peaks)
