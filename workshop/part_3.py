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
        self.validated_on: list[Tensor] = []
        self.modes: list[tuple[bool, bool]] = []  # (training, gradients on) of each call

    def forward(self, ids_bt: Tensor) -> Tensor:
        self.modes.append((self.training, torch.is_grad_enabled()))
        if torch.is_grad_enabled() and self.training:
            self.trained_on.append(ids_bt)
        if not self.training:
            self.validated_on.append(ids_bt)
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
    given = theirs.train(model, ids_of(), generator=generator, **settings)
    if not isinstance(given, tuple) or len(given) != 2:
        raise Wrong(
            "train is to give two things: the list of each step's loss, and the validation loss"
        )
    losses, held_out = given
    if any(isinstance(loss, Tensor) for loss in losses):
        raise Wrong(
            "the losses are tensors, each of which keeps all that it was computed from in memory: "
            "loss.item()"
        )
    return [float(loss) for loss in losses], float(held_out)


@PART.check("the last part is held out")
def split(theirs: Any) -> None:
    ids_n = torch.arange(100)
    train, val = (part.tolist() for part in theirs.split(ids_n, 0.1))
    if train == list(range(90)) and val == list(range(90, 100)):
        return
    seen = f"of 0 ... 99 a tenth held out should be 90 ... 99; yours is {val[:3]} ..., with "
    seen += f"{len(train)} to train on"
    if set(train) & set(val):
        raise Wrong(f"what is held out is trained on too: nothing may be in both parts; {seen}")
    if train == list(range(10)):
        raise Wrong(f"a tenth is trained on, and the rest held out: it is 1 - val_fraction; {seen}")
    if len(train) < len(val):
        raise Wrong(f"the two parts are swapped: {seen}")
    if val == list(range(10)):
        raise Wrong(f"the beginning is held out, not the end: {seen}")
    raise Wrong(f"the split is in the wrong place: {seen}; the last part, as it stands")


def batch(theirs: Any, seed: int = 0, ids_n: Tensor | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids_n = torch.arange(50) if ids_n is None else ids_n
    try:
        inputs_bt, targets_bt = theirs.get_batch(ids_n, BLOCK, 16, generator)
    except NotImplementedError:
        raise
    except (RuntimeError, IndexError) as error:
        raise Wrong(
            "a piece runs over the end of the text: the last place to start is the one whose "
            "target is the last id"
        ) from error
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
        at = int((inputs_bt + 1 != targets_bt)[0].nonzero()[0, 0])
        part = slice(max(at - 2, 0), max(at + 1, 3))
        raise Wrong(
            f"the targets are not shifted by one: in 0, 1, 2, ... inputs "
            f"{inputs_bt[0, part].tolist()} should have the targets "
            f"{(inputs_bt[0, part] + 1).tolist()}, not {targets_bt[0, part].tolist()}"
        )


@PART.check("batches come from everywhere, by the generator")
def everywhere(theirs: Any) -> None:
    if not torch.equal(batch(theirs, 1)[0], batch(theirs, 1)[0]):
        raise Wrong("the same generator gave two batches: draw with generator=generator")
    if torch.equal(batch(theirs, 1)[0], batch(theirs, 2)[0]):
        raise Wrong(
            "two seeds gave one batch: draw the places with torch.randint, by the generator that "
            "is given"
        )
    # So short that each start is drawn.
    starts = {int(t) for seed in range(9) for t in batch(theirs, seed, torch.arange(12))[0][:, 0]}
    if starts != {0, 1, 2, 3}:
        raise Wrong(
            f"the places to start are off by one: of 12 ids a block of {BLOCK} with its targets "
            f"can start at 0 to 3; yours start at {sorted(starts)}"
        )


@PART.check("the loss is -ln of the target's probability, on average")
def loss(theirs: Any) -> None:
    logits_btv = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    targets_bt = torch.tensor([[0, 1, 2], [3, 4, 0]])
    expected = float(-logits_btv.log_softmax(-1).gather(-1, targets_bt[..., None]).mean())
    try:
        given = theirs.loss_of(logits_btv, targets_bt)
    except NotImplementedError:
        raise
    except (RuntimeError, ValueError) as error:
        raise Wrong(
            "the axes do not fit: F.cross_entropy takes one row of logits for each target, (n, v) "
            "and (n,), so (b, t) become one axis first"
        ) from error
    if torch.as_tensor(given).numel() != 1:
        raise Wrong(
            f"the loss is not averaged: it has {given.numel()} numbers, one for each target"
        )
    if not isinstance(given, Tensor):
        raise Wrong(
            f"the loss is a plain {type(given).__name__}, of which no gradients can be computed: "
            "give the tensor"
        )
    found = float(given)
    if abs(found - expected) < 1e-4:
        return

    def mean_of(log_probs_btv: Tensor, targets_bt: Tensor = targets_bt) -> float:
        return float(-log_probs_btv.gather(-1, targets_bt[..., None]).mean())

    mistakes = (
        ("the loss is not averaged: it is the sum over all targets", expected * 6),
        ("the loss is averaged over b alone: divide by all b x t targets", expected * 3),
        ("the loss is averaged over t alone: divide by all b x t targets", expected * 2),
        ("the loss has the wrong sign: it is minus the logarithm", -expected),
        ("the loss is in bits: take the natural logarithm", expected / math.log(2)),
        ("the loss is e to the power of what it should be (perplexity)", math.exp(expected)),
        (
            "the softmax is done twice: F.cross_entropy takes logits, not probabilities",
            mean_of(logits_btv.softmax(-1).log_softmax(-1)),
        ),
        ("the softmax is on the wrong axis: v is the last", mean_of(logits_btv.log_softmax(1))),
        ("the softmax is on the wrong axis: v is the last", mean_of(logits_btv.log_softmax(0))),
        (
            "the logarithm is missing: the loss is -ln(probability)",
            mean_of(logits_btv.softmax(-1)),
        ),
        (
            "the targets are shifted twice: get_batch has moved them already",
            mean_of(logits_btv[:, :-1].log_softmax(-1), targets_bt[:, 1:]),
        ),
    )
    for said, value in mistakes:
        if abs(found - value) < 1e-4:
            raise Wrong(f"{said}. It should be {expected:.4f}, and is {found:.4f}")
    raise Wrong(f"the loss should be {expected:.4f}, and is {found:.4f}: F.cross_entropy")


@PART.check("the learning rate warms up, then falls along a cosine")
def schedule(theirs: Any) -> None:
    steps, warm, peak, end = (RATES[key] for key in ("steps", "warmup_steps", "peak", "end"))

    def falling(progress: float) -> float:
        return float(end + (peak - end) * (1 + math.cos(math.pi * progress)) / 2)

    def rising(step: int) -> float:
        return float(peak * (step + 1) / warm)

    found = [float(theirs.learning_rate_at(step, **RATES)) for step in range(steps)]
    fallen = [falling((step - warm) / (steps - warm)) for step in range(warm, steps)]
    risen = [rising(step) for step in range(warm)]
    expected = risen + fallen

    def same(one: list[float], other: list[float]) -> bool:
        return all(abs(a - b) < 1e-8 for a, b in zip(one, other, strict=True))

    if same(found, expected):
        return
    step = next(n for n in range(steps) if abs(found[n] - expected[n]) >= 1e-8)
    said = "the learning rate is off"
    if len(set(found)) == 1:
        said = "the learning rate never changes"
    elif same(found[:warm], [peak * step / warm for step in range(warm)]):
        said = "the warm-up is off by one, and the first step moves nothing"
    elif same(found[warm:], fallen):
        said = "the warm-up is missing or wrong"
    elif same(found, [min(rising(step), peak) for step in range(steps)]):
        said = "the learning rate does not fall after the warm-up"
    elif same(found, risen + [falling(step / steps) for step in range(warm, steps)]):
        said = "the cosine begins at step 0, not where the warm-up ends"
    elif same(found[warm:], [2 * rate - end for rate in fallen]):
        said = "the cosine is not halved: 1 + cos runs from 2 to 0"
    elif same(found[warm:], [(rate - end) * peak / (peak - end) for rate in fallen]):
        said = "the cosine falls to 0, not to `end`"
    elif same(found, [*risen, rising(warm), *fallen[1:]]):
        said = "the warm-up is a step too long, and goes beyond the peak: steps are counted from 0"
    elif same(found[:warm], risen):
        said = "the cosine is wrong"
    raise Wrong(
        f"{said}: at step {step} of {steps} the learning rate should be {expected[step]:.6f}, and "
        f"is {found[step]:.6f}"
    )


def validated(theirs: Any, model: Spy, ids_n: Tensor) -> float:
    try:
        return float(theirs.validation_loss(model, ids_n, BLOCK))
    except NotImplementedError:
        raise
    except RuntimeError as error:
        raise Wrong(
            f"the blocks do not fit: {len(ids_n)} ids hold {(len(ids_n) - 1) // BLOCK} whole "
            f"blocks of {BLOCK}, since the last id of a block needs one behind it as its target"
        ) from error


@PART.check("validation is done without dropout, over everything, and changes nothing")
def validation(theirs: Any) -> None:
    model = Spy(dropout=0.5)
    model.train()
    ids_n = torch.arange(3 * BLOCK + 3) % 10
    found = validated(theirs, model, ids_n)
    modes = list(model.modes)
    if any(training for training, _ in modes):
        raise Wrong(
            "eval mode is forgotten: the model was in training mode while it was validated, so "
            "dropout threw away a part of it"
        )
    if any(gradients for _, gradients in modes):
        raise Wrong("gradients were kept while validating: with torch.no_grad()")
    if not model.training:
        raise Wrong("training mode is not put back: after validation the model trains on")
    model.eval()
    with torch.no_grad():
        logits_btv = model(ids_n[: 3 * BLOCK].view(3, BLOCK))

    def loss_on(targets_n: Tensor, logits_btv: Tensor = logits_btv) -> float:
        return float(nn.functional.cross_entropy(logits_btv.flatten(0, 1), targets_n))

    expected = loss_on(ids_n[1 : 3 * BLOCK + 1])
    if abs(found - expected) < 1e-4:
        # Where the text ends with a block, that has no target for its last id.
        validated(theirs, Spy(), ids_n[: 3 * BLOCK])
        return
    if abs(found - loss_on(ids_n[: 3 * BLOCK])) < 1e-4:
        raise Wrong(
            "the targets of the validation are not shifted: they equal the inputs; targets are the "
            f"ids one further, and the loss is {expected:.4f} then, not {found:.4f}"
        )
    for blocks in (1, 2):
        of_these = loss_on(ids_n[1 : blocks * BLOCK + 1], logits_btv[:blocks])
        if abs(found - of_these) < 1e-4:
            raise Wrong(
                f"only {blocks} of the three whole blocks of {len(ids_n)} ids were looked at: "
                f"over all the loss is {expected:.4f}, not {found:.4f}"
            )
    raise Wrong(
        f"the validation loss should be {expected:.4f} over the three whole blocks of {len(ids_n)} "
        f"ids, and is {found:.4f}"
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
            "the validation loss says nothing any more; split first, and take batches from the "
            "first part"
        )
    if not any(bool((ids_bt == 9).all()) for ids_bt in model.validated_on):
        raise Wrong(
            "training data was validated on: the loss at the end is to be of the part that is held "
            "out, the second of split"
        )
    first = model.trained_on[0]
    if all(torch.equal(ids_bt, first) for ids_bt in model.trained_on):
        raise Wrong(
            "every step has the same batch: draw one inside the loop, with the generator that "
            "train was given"
        )


@PART.check("each step has gradients of its own, and an update by them")
def zeroed(theirs: Any) -> None:
    model, fresh, events = Spy(), [0.0], [("", 0.0)]
    weight = model.head.weight

    def note(p: Tensor) -> None:
        assert p.grad is not None
        events.append(("backward", float(p.grad.norm())))

    def note_update(optimizer: Any, *_: Any) -> None:
        events.append(("step", 0.0 if weight.grad is None else float(weight.grad.norm())))

    weight.register_hook(lambda gradient: fresh.append(float(gradient.norm())))  # type: ignore[no-untyped-call]
    weight.register_post_accumulate_grad_hook(note)  # type: ignore[no-untyped-call]
    hook = register_optimizer_step_pre_hook(note_update)
    try:
        trained(theirs, model, steps=12)
    finally:
        hook.remove()
    names = [name for name, _ in events]
    if "backward" not in names:
        raise Wrong("backward is missing: without it there are no gradients to move the weights by")
    if "step" not in names:
        raise Wrong("the update is missing: optimizer.step() moves the weights")
    if names[1] == "step":
        raise Wrong("the update comes too early: a step follows the backward of its own batch")
    kept = [norm for name, norm in events if name != "step"]
    for step, (new, all_together) in enumerate(zip(fresh, kept, strict=True)):
        if abs(new - all_together) > 1e-5 * max(1.0, new):
            raise Wrong(
                f"zero_grad is missing in the loop: at step {step - 1} the gradients of the steps "
                "before were still there, and the new ones were added to them; "
                "optimizer.zero_grad() in each step"
            )
    if any(norm == 0.0 for name, norm in events if name == "step"):
        raise Wrong(
            "zero_grad is in the wrong place: the gradients were gone at the update; it may stand "
            "anywhere but between backward and step"
        )


@PART.check("each update has the learning rate of its step, and clipped gradients")
def updates(theirs: Any) -> None:
    rates: list[float] = []
    norms: list[float] = []
    largest: list[float] = []
    optimizers: list[Any] = []

    def note(optimizer: Any, *_: Any) -> None:
        optimizers.append(optimizer)
        rates.append(float(optimizer.param_groups[0]["lr"]))
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        there = [g for g in gradients if g is not None]
        norms.append(math.sqrt(sum(float(g.norm()) ** 2 for g in there)))
        largest.append(max((float(g.abs().max()) for g in there), default=0.0))

    hook = register_optimizer_step_pre_hook(note)
    try:
        trained(theirs, Spy(size=50.0), grad_clip=0.5)
    finally:
        hook.remove()
    if len(rates) != RATES["steps"]:
        raise Wrong(f"{RATES['steps']} steps made {len(rates)} updates")
    if any(optimizer is not optimizers[0] for optimizer in optimizers):
        raise Wrong(
            "each step has a new optimizer, which knows nothing of the steps before: make one, "
            "ahead of the loop"
        )
    if not isinstance(optimizers[0], torch.optim.AdamW):
        raise Wrong(f"the optimizer is {type(optimizers[0]).__name__}: take torch.optim.AdamW")
    expected = [theirs.learning_rate_at(step, **RATES) for step in range(len(rates))]
    wrong = [step for step, rate in enumerate(rates) if abs(rate - expected[step]) > 1e-9]
    if wrong:
        late = all(abs(a - b) < 1e-9 for a, b in zip(rates[1:], expected[:-1], strict=True))
        said = "is set too late" if late else "is not that of its step"
        if len({round(rate, 9) for rate in rates}) == 1:
            said = "is not scheduled"
        raise Wrong(
            f"the learning rate {said}: at step {wrong[0]} it was {rates[wrong[0]]:.6f}, and "
            f"learning_rate_at gives {expected[wrong[0]]:.6f}; set it in optimizer.param_groups "
            "before each update"
        )
    if max(norms) > 0.5 * 1.01:
        number_by_number = max(largest) <= 0.5 * 1.01
        at_most = max(norms)
        if not number_by_number and sum(norm > at_most * 0.99 for norm in norms) > 5:
            raise Wrong(
                f"gradients are clipped to {at_most:.2f}, and not to grad_clip, which was 0.5"
            )
        raise Wrong(
            "each number of the gradients is clipped by itself, which turns their direction: clip "
            f"their norm, which was {max(norms):.2f} with grad_clip 0.5"
            if number_by_number
            else "clipping is missing, or in the wrong place: a gradient had the norm "
            f"{max(norms):.2f} at an update, above grad_clip 0.5; clip between backward and step"
        )


@PART.check("it learns")
def learns(theirs: Any) -> None:
    model = Spy()
    losses, _ = trained(theirs, model, steps=200, peak=0.05)
    if len(losses) != 200:
        raise Wrong(f"200 steps should give 200 losses, not {len(losses)}")
    model.eval()
    with torch.no_grad():
        said = model(torch.arange(8)[None])[0].argmax(-1)
    if torch.equal(said, torch.arange(8)):
        raise Wrong(
            "the targets are not shifted in the loop: the model has learned to say again what it "
            "reads; the loss is of its logits and the targets of get_batch"
        )
    if not losses[-1] < 0.3:
        raise Wrong(
            f"it does not learn: after 200 steps on 0 1 2 ... 8 0 1 2 ... the loss is "
            f"{losses[-1]:.2f}, from {losses[0]:.2f}, and should be near 0"
        )
