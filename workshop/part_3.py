"""What `gpt workshop check 3` asks of train.py."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from workshop.checking import Part, Wrong

PART = Part("train.py")
BLOCK = 8
RATES: dict[str, Any] = {"steps": 30, "warmup_steps": 10, "peak": 1e-2, "end": 1e-3}


class Spy(nn.Module):
    """A small model that notes what is done to it: v = 10 ids, t positions at a time."""

    def __init__(self, dropout: float = 0.0, size: float = 1.0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.embedding = nn.Embedding(10, 16)
            self.head = nn.Linear(16, 10)
        self.dropout = nn.Dropout(dropout)
        self.size = size
        self.trained_on: list[Tensor] = []
        self.modes: list[tuple[bool, bool]] = []  # (training, gradients on) of each call

    def forward(self, ids_bt: Tensor) -> Tensor:
        self.modes.append((self.training, torch.is_grad_enabled()))
        if torch.is_grad_enabled() and self.training:
            self.trained_on.append(ids_bt)
        logits_btv: Tensor = self.head(self.dropout(self.embedding(ids_bt))) * self.size
        return logits_btv


def ids_of(n: int = 400) -> Tensor:
    """0 1 2 ... 8 0 1 2 ...; the last tenth is 9 alone."""
    ids_n = torch.arange(n) % 9
    ids_n[n - n // 10 :] = 9
    return ids_n


def trained(theirs: Any, model: nn.Module, **changes: Any) -> tuple[list[float], float]:
    settings = {"batch_size": 4, "block_size": BLOCK, **RATES} | changes
    generator = torch.Generator().manual_seed(1)
    losses, held_out = theirs.train(model, ids_of(), generator=generator, **settings)
    return [float(loss) for loss in losses], float(held_out)


@PART.check("the last part is held out")
def split(theirs: Any) -> None:
    ids_n = torch.arange(100)
    train, val = theirs.split(ids_n, 0.1)
    if list(val) != list(range(90, 100)) or list(train) != list(range(90)):
        raise Wrong(
            f"of 0 ... 99 a tenth held out should be 90 ... 99; yours is {val.tolist()[:3]} ... "
            "with "
            f"{len(train)} to train on: the last part, and nothing in both"
        )


def batch(theirs: Any, seed: int = 0, ids_n: Tensor | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids_n = torch.arange(50) if ids_n is None else ids_n
    inputs_bt, targets_bt = theirs.get_batch(ids_n, BLOCK, 16, generator)
    if tuple(inputs_bt.shape) != (16, BLOCK) or tuple(targets_bt.shape) != (16, BLOCK):
        raise Wrong(
            f"inputs and targets should both be (16, {BLOCK}); they are {tuple(inputs_bt.shape)} "
            "and "
            f"{tuple(targets_bt.shape)}"
        )
    return inputs_bt, targets_bt


@PART.check("targets are the inputs moved by one")
def shifted(theirs: Any) -> None:
    inputs_bt, targets_bt = batch(theirs)
    if torch.equal(inputs_bt, targets_bt):
        raise Wrong(
            "the targets are not shifted: they equal the inputs, so the model would learn to say "
            "what "
            "it just read; targets are the ids one further"
        )
    if not torch.equal(inputs_bt + 1, targets_bt):
        raise Wrong(
            f"in 0, 1, 2, ... inputs {inputs_bt[0, :3].tolist()} should have the targets "
            f"{(inputs_bt[0, :3] + 1).tolist()}, not {targets_bt[0, :3].tolist()}"
        )


@PART.check("batches come from everywhere, by the generator")
def everywhere(theirs: Any) -> None:
    if not torch.equal(batch(theirs, 1)[0], batch(theirs, 1)[0]):
        raise Wrong("the same generator gave two batches: draw with generator=generator")
    if torch.equal(batch(theirs, 1)[0], batch(theirs, 2)[0]):
        raise Wrong("two seeds gave one batch: draw the places with torch.randint")
    # So short that each start is drawn.
    starts = {int(t) for seed in range(9) for t in batch(theirs, seed, torch.arange(12))[0][:, 0]}
    if starts != {0, 1, 2, 3}:
        raise Wrong(
            f"of 12 ids a block of {BLOCK} with its targets can start at 0 to 3; yours start at "
            f"{sorted(starts)}: len(ids) - block_size places"
        )


@PART.check("the loss is -ln of the target's probability, on average")
def loss(theirs: Any) -> None:
    logits_btv = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    targets_bt = torch.tensor([[0, 1, 2], [3, 4, 0]])
    expected = float(-logits_btv.log_softmax(-1).gather(-1, targets_bt[..., None]).mean())
    found = float(theirs.loss_of(logits_btv, targets_bt))
    if abs(found - expected) > 1e-4:
        raise Wrong(f"the loss should be {expected:.4f}, and is {found:.4f}: F.cross_entropy")


@PART.check("the learning rate warms up, then falls along a cosine")
def schedule(theirs: Any) -> None:
    steps, warm, peak, end = (RATES[key] for key in ("steps", "warmup_steps", "peak", "end"))
    for step in range(steps):
        progress = (step - warm) / (steps - warm)
        falling = end + (peak - end) * (1 + math.cos(math.pi * progress)) / 2
        expected = peak * (step + 1) / warm if step < warm else falling
        found = theirs.learning_rate_at(step, **RATES)
        if abs(found - expected) > 1e-8:
            raise Wrong(
                f"at step {step} of {steps} the learning rate should be {expected:.6f}, and is "
                f"{found:.6f}"
            )


@PART.check("validation is done without dropout, over everything, and changes nothing")
def validation(theirs: Any) -> None:
    model = Spy(dropout=0.5)
    model.train()
    ids_n = torch.arange(3 * BLOCK + 3) % 10
    found = float(theirs.validation_loss(model, ids_n, BLOCK))
    modes = list(model.modes)
    if any(training for training, _ in modes):
        raise Wrong(
            "the model was in training mode while it was validated: eval mode is forgotten, so "
            "dropout throws away a part of it (model.eval())"
        )
    if any(gradients for _, gradients in modes):
        raise Wrong("gradients were kept while validating: with torch.no_grad()")
    if not model.training:
        raise Wrong("after validation the model has to train on: model.train()")
    model.eval()
    with torch.no_grad():
        logits_btv = model(ids_n[: 3 * BLOCK].view(3, BLOCK))
    targets = ids_n[1 : 3 * BLOCK + 1]
    expected = float(nn.functional.cross_entropy(logits_btv.flatten(0, 1), targets))
    if abs(found - expected) > 1e-4:
        raise Wrong(
            f"over the three whole blocks of {len(ids_n)} ids the loss should be {expected:.4f}, "
            "and "
            f"is {found:.4f}"
        )


@PART.check("only the training part is trained on")
def held_out(theirs: Any) -> None:
    model = Spy()
    trained(theirs, model)
    if not model.trained_on:
        raise Wrong("nothing was trained on in training mode: call model.train() before the loop")
    if any(bool((ids_bt == 9).any()) for ids_bt in model.trained_on):
        raise Wrong(
            "validation data was trained on: ids of the last tenth were in a training batch, so "
            "the "
            "validation loss says nothing any more; split first, and take batches from the first "
            "part"
        )


@PART.check("gradients are set back for each step")
def zeroed(theirs: Any) -> None:
    model, fresh, kept = Spy(), [0.0], [0.0]
    weight = model.head.weight

    def note(p: Tensor) -> None:
        assert p.grad is not None
        kept.append(float(p.grad.norm()))

    weight.register_hook(lambda gradient: fresh.append(float(gradient.norm())))  # type: ignore[no-untyped-call]
    weight.register_post_accumulate_grad_hook(note)  # type: ignore[no-untyped-call]
    trained(theirs, model, steps=12)
    for step, (new, all_together) in enumerate(zip(fresh, kept, strict=True)):
        if abs(new - all_together) > 1e-5 * max(1.0, new):
            raise Wrong(
                f"at step {step - 1} the gradients of the steps before were still there, and the "
                "new "
                "ones were added to them: optimizer.zero_grad() in each step"
            )


@PART.check("each update has the learning rate of its step, and clipped gradients")
def updates(theirs: Any) -> None:
    rates: list[float] = []
    norms: list[float] = []

    def note(optimizer: Any, *_: Any) -> None:
        rates.append(float(optimizer.param_groups[0]["lr"]))
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(math.sqrt(sum(float(g.norm()) ** 2 for g in gradients if g is not None)))

    hook = register_optimizer_step_pre_hook(note)
    try:
        trained(theirs, Spy(size=50.0), grad_clip=0.5)
    finally:
        hook.remove()
    if len(rates) != RATES["steps"]:
        raise Wrong(f"{RATES['steps']} steps made {len(rates)} updates")
    for step, rate in enumerate(rates):
        expected = theirs.learning_rate_at(step, **RATES)
        if abs(rate - expected) > 1e-9:
            raise Wrong(
                f"at step {step} the learning rate was {rate:.6f}, and learning_rate_at "
                f"gives {expected:.6f}: the learning rate is not scheduled; set it in "
                "optimizer.param_groups before each step"
            )
    if max(norms) > 0.5 * 1.01:
        raise Wrong(
            f"a gradient had the norm {max(norms):.2f} at an update, above grad_clip 0.5: clip "
            "between "
            "backward and step"
        )


@PART.check("it learns")
def learns(theirs: Any) -> None:
    losses, _ = trained(theirs, Spy(), steps=200, peak=0.05)
    if len(losses) != 200:
        raise Wrong(f"200 steps should give 200 losses, not {len(losses)}")
    if not losses[-1] < 0.3:
        raise Wrong(
            f"after 200 steps on 0 1 2 ... 8 0 1 2 ... the loss is {losses[-1]:.2f}, from "
            f"{losses[0]:.2f}; it should be near 0: is there a backward and a step in each turn?"
        )
