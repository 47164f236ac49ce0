"""The checks of `gpt workshop check 3`, continued: validation and the training loop of train.py."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from workshop.checking import Wrong, hint_on
from workshop.train_checks import BLOCK, RATES
from workshop.train_checks import CHECKS as CHECKS


class Spy(nn.Module):
    """A small model with v = 10 ids that records its inputs and modes."""

    def __init__(self, dropout: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.embedding = nn.Embedding(10, 16)
            self.head = nn.Linear(16, 10)
        self.dropout = nn.Dropout(dropout)
        self.scale = scale
        self.train_inputs: list[Tensor] = []
        self.val_inputs: list[Tensor] = []
        self.modes: list[tuple[bool, bool]] = []  # (training, gradients on) of each call

    def forward(self, ids_bt: Tensor) -> Tensor:
        self.modes.append((self.training, torch.is_grad_enabled()))
        if torch.is_grad_enabled() and self.training:
            self.train_inputs.append(ids_bt)
        if not self.training:
            self.val_inputs.append(ids_bt)
        logits_btv: Tensor = self.head(self.dropout(self.embedding(ids_bt))) * self.scale
        return logits_btv


def ids_of(n: int = 400) -> Tensor:
    """0 1 2 ... 8 0 1 2 ...; the last tenth is 9 alone."""
    ids_n = torch.arange(n) % 9
    ids_n[n - n // 10 :] = 9
    return ids_n


def run_training(
    theirs: Any, model: nn.Module, on_update: Callable[..., None] | None = None, **changes: Any
) -> list[float]:
    """The losses of a training; `on_update` gets the optimizer before each of its updates."""
    settings = {"batch_size": 4, "block_size": BLOCK, **RATES} | changes
    generator = torch.Generator().manual_seed(1)
    hook = register_optimizer_step_pre_hook(on_update or (lambda *_: None))
    try:
        result = theirs.train(model, ids_of(), generator=generator, **settings)
    finally:
        hook.remove()
    if not isinstance(result, tuple) or len(result) != 2:
        raise Wrong("train should return two things: the list of losses, and the validation loss")
    losses = result[0]
    if any(isinstance(loss, Tensor) for loss in losses):
        raise Wrong(
            "the losses are tensors, each of which keeps its whole graph in memory: loss.item()"
        )
    float(result[1])
    return [float(loss) for loss in losses]


def validation_loss(theirs: Any, model: Spy, ids_n: Tensor) -> float:
    with hint_on(
        f"the blocks do not fit: {len(ids_n)} ids hold {(len(ids_n) - 1) // BLOCK} full blocks of "
        f"{BLOCK}, since the last id of a block needs the next one as its target",
        RuntimeError,
    ):
        return float(theirs.validation_loss(model, ids_n, BLOCK))


@CHECKS.check("validation is done without dropout, over everything, and changes nothing")
def validation(theirs: Any) -> None:
    model = Spy(dropout=0.5)
    model.train()
    ids_n = torch.arange(3 * BLOCK + 3) % 10
    actual = validation_loss(theirs, model, ids_n)
    if any(training for training, _ in model.modes):
        raise Wrong(
            "eval mode is forgotten: the model was in training mode during validation, so dropout "
            "was on"
        )
    if any(gradients for _, gradients in model.modes):
        raise Wrong("gradients were on during validation: use torch.no_grad()")
    if not model.training:
        raise Wrong("training mode is not restored: after validation the training continues")
    model.eval()
    with torch.no_grad():
        logits_btv = model(ids_n[: 3 * BLOCK].view(3, BLOCK))

    def loss_on(targets_n: Tensor, logits_btv: Tensor = logits_btv) -> float:
        return float(nn.functional.cross_entropy(logits_btv.flatten(0, 1), targets_n))

    expected = loss_on(ids_n[1 : 3 * BLOCK + 1])
    if abs(actual - expected) < 1e-4:
        # If the text ends with a block, that one has no target for its last id.
        validation_loss(theirs, Spy(), ids_n[: 3 * BLOCK])
        return
    if abs(actual - loss_on(ids_n[: 3 * BLOCK])) < 1e-4:
        raise Wrong(
            "the targets of the validation are not shifted: they equal the inputs; targets are the "
            f"ids one further, and the loss is {expected:.4f} then, not {actual:.4f}"
        )
    for count in (1, 2):
        partial = loss_on(ids_n[1 : count * BLOCK + 1], logits_btv[:count])
        if abs(actual - partial) < 1e-4:
            raise Wrong(
                f"only {count} of the three full blocks of {len(ids_n)} ids were scored: over all "
                f"the loss is {expected:.4f}, not {actual:.4f}"
            )
    raise Wrong(
        f"the validation loss should be {expected:.4f} over the three full blocks of {len(ids_n)} "
        f"ids, and is {actual:.4f}"
    )


@CHECKS.check("only the training split is trained on")
def held_out(theirs: Any) -> None:
    model = Spy()
    run_training(theirs, model)
    if not model.train_inputs:
        raise Wrong("nothing was trained on in training mode: call model.train() before the loop")
    if any(bool((ids_bt == 9).any()) for ids_bt in model.train_inputs):
        raise Wrong(
            "validation data was trained on: ids of the last tenth were in a training batch, so "
            "the validation loss means nothing; split first, and take batches from the first split"
        )
    if not any(bool((ids_bt == 9).all()) for ids_bt in model.val_inputs):
        raise Wrong(
            "training data was validated on: the final loss should be that of the second split"
        )
    first = model.train_inputs[0]
    if all(torch.equal(ids_bt, first) for ids_bt in model.train_inputs):
        raise Wrong(
            "every step has the same batch: sample one inside the loop, with train's generator"
        )


@CHECKS.check("each step updates by the gradients of its own batch")
def zeroed(theirs: Any) -> None:
    model, new_norms, events = Spy(), [0.0], [("", 0.0)]
    weight = model.head.weight

    def on_backward(p: Tensor) -> None:
        assert p.grad is not None
        events.append(("backward", float(p.grad.norm())))

    def on_update(optimizer: Any, *_: Any) -> None:
        events.append(("step", 0.0 if weight.grad is None else float(weight.grad.norm())))

    weight.register_hook(lambda gradient: new_norms.append(float(gradient.norm())))  # type: ignore[no-untyped-call]
    weight.register_post_accumulate_grad_hook(on_backward)  # type: ignore[no-untyped-call]
    run_training(theirs, model, on_update, steps=12)
    names = [name for name, _ in events]
    if "backward" not in names:
        raise Wrong("backward is missing: without it there are no gradients to move the weights by")
    if "step" not in names:
        raise Wrong("the update is missing: optimizer.step() moves the weights")
    if names[1] == "step":
        raise Wrong("the update comes too early: a step follows the backward of its own batch")
    accumulated = [norm for name, norm in events if name != "step"]
    for step, (new, total) in enumerate(zip(new_norms, accumulated, strict=True)):
        if abs(new - total) > 1e-5 * max(1.0, new):
            raise Wrong(
                f"zero_grad is missing in the loop: at step {step - 1} the gradients of the steps "
                "before were still there, and the new ones were added to them; "
                "optimizer.zero_grad() in each step"
            )
    if any(norm == 0.0 for name, norm in events if name == "step"):
        raise Wrong(
            "zero_grad is in the wrong position: the gradients were gone at the update; it may "
            "stand anywhere but between backward and step"
        )


@CHECKS.check("each update has the learning rate of its step, and clipped gradients")
def updates(theirs: Any) -> None:
    rates: list[float] = []
    norms: list[float] = []
    largest: list[float] = []
    optimizers: list[Any] = []

    def on_update(optimizer: Any, *_: Any) -> None:
        optimizers.append(optimizer)
        rates.append(float(optimizer.param_groups[0]["lr"]))
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        existing = [g for g in gradients if g is not None]
        norms.append(math.sqrt(sum(float(g.norm()) ** 2 for g in existing)))
        largest.append(max((float(g.abs().max()) for g in existing), default=0.0))

    run_training(theirs, Spy(scale=50.0), on_update, grad_clip=0.5)
    if len(rates) != RATES["steps"]:
        raise Wrong(f"{RATES['steps']} steps made {len(rates)} updates")
    if any(optimizer is not optimizers[0] for optimizer in optimizers):
        raise Wrong(
            "each step has a new optimizer, without the averages of the steps before: make one, "
            "ahead of the loop"
        )
    if not isinstance(optimizers[0], torch.optim.AdamW):
        raise Wrong(f"the optimizer is {type(optimizers[0]).__name__}: take torch.optim.AdamW")
    expected = [theirs.learning_rate_at(step, **RATES) for step in range(len(rates))]
    wrong = [step for step, rate in enumerate(rates) if abs(rate - expected[step]) > 1e-9]
    if wrong:
        late = all(abs(a - b) < 1e-9 for a, b in zip(rates[1:], expected[:-1], strict=True))
        hint = "is set too late" if late else "is not that of its step"
        if len({round(rate, 9) for rate in rates}) == 1:
            hint = "is not scheduled"
        raise Wrong(
            f"the learning rate {hint}: at step {wrong[0]} it was {rates[wrong[0]]:.6f}, and "
            f"learning_rate_at gives {expected[wrong[0]]:.6f}; set it in optimizer.param_groups "
            "before each update"
        )
    if max(norms) > 0.5 * 1.01:
        largest_norm = max(norms)
        if max(largest) <= 0.5 * 1.01:
            raise Wrong(
                "each element of the gradients is clipped by itself, which changes their "
                f"direction: clip their norm, which was {largest_norm:.2f} with grad_clip 0.5"
            )
        if sum(norm > largest_norm * 0.99 for norm in norms) > 5:
            raise Wrong(
                f"gradients are clipped to {largest_norm:.2f}, and not to grad_clip, which was 0.5"
            )
        raise Wrong(
            "clipping is missing, or in the wrong position: a gradient had the norm "
            f"{largest_norm:.2f} at an update, above grad_clip 0.5; clip between backward and step"
        )


@CHECKS.check("it learns")
def learns(theirs: Any) -> None:
    model = Spy()
    losses = run_training(theirs, model, steps=200, peak=0.05)
    if len(losses) != 200:
        raise Wrong(f"200 steps should give 200 losses, not {len(losses)}")
    model.eval()
    with torch.no_grad():
        predicted = model(torch.arange(8)[None])[0].argmax(-1)
    if torch.equal(predicted, torch.arange(8)):
        raise Wrong(
            "the targets are not shifted in the loop: the model has learned to repeat what it "
            "reads; the loss is of its logits and the targets of get_batch"
        )
    if not losses[-1] < 0.3:
        raise Wrong(
            f"it does not learn: after 200 steps on 0 1 2 ... 8 0 1 2 ... the loss is "
            f"{losses[-1]:.2f}, from {losses[0]:.2f}, and should be near 0"
        )
