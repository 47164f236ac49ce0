"""The checks of `gpt workshop check 3`: the functions of train.py except the loop."""

import math
from typing import Any

import torch
from torch import Tensor

from workshop.checking import Checklist, Wrong, hint_on

CHECKS = Checklist()
BLOCK = 8
RATES: dict[str, Any] = {"steps": 30, "warmup_steps": 10, "peak": 1e-2, "end": 1e-3}


@CHECKS.check("the last fraction is held out")
def split(theirs: Any) -> None:
    ids_n = torch.arange(100)
    train, val = (split_n.tolist() for split_n in theirs.split(ids_n, 0.1))
    if train == list(range(90)) and val == list(range(90, 100)):
        return
    observed = f"of 0 ... 99 a tenth held out should be 90 ... 99; yours is {val[:3]} ..., with "
    observed += f"{len(train)} to train on"
    if set(train) & set(val):
        raise Wrong(f"what is held out is trained on too: no id may be in both splits; {observed}")
    if train == list(range(10)):
        raise Wrong(
            f"a tenth is trained on, and the rest held out: it is 1 - val_fraction; {observed}"
        )
    if len(train) < len(val):
        raise Wrong(f"the two splits are swapped: {observed}")
    if val == list(range(10)):
        raise Wrong(f"the beginning is held out, not the end: {observed}")
    raise Wrong(f"the split is at the wrong index: {observed}")


def batch(theirs: Any, seed: int = 0, ids_n: Tensor | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids_n = torch.arange(50) if ids_n is None else ids_n
    with hint_on(
        "a block runs over the end of the text: the last start is the one whose last target is the "
        "last id",
        RuntimeError,
        IndexError,
    ):
        inputs_bt, targets_bt = theirs.get_batch(ids_n, BLOCK, 16, generator)
    shapes = [tuple(inputs_bt.shape), tuple(targets_bt.shape)]
    if shapes != [(16, BLOCK)] * 2:
        raise Wrong(f"inputs and targets should be (16, {BLOCK}); they are {shapes}")
    return inputs_bt, targets_bt


@CHECKS.check("targets are the inputs moved by one")
def shifted(theirs: Any) -> None:
    inputs_bt, targets_bt = batch(theirs)
    if torch.equal(inputs_bt, targets_bt):
        raise Wrong(
            "the targets are not shifted: they equal the inputs, so the model would learn to "
            "repeat what it reads; targets are the ids one further"
        )
    if not torch.equal(inputs_bt + 1, targets_bt):
        t = int((inputs_bt + 1 != targets_bt)[0].nonzero()[0, 0])
        shown = slice(max(t - 2, 0), max(t + 1, 3))
        raise Wrong(
            f"the targets are not shifted by one: in 0, 1, 2, ... inputs "
            f"{inputs_bt[0, shown].tolist()} should have the targets "
            f"{(inputs_bt[0, shown] + 1).tolist()}, not {targets_bt[0, shown].tolist()}"
        )


@CHECKS.check("batches start everywhere, sampled by the generator")
def everywhere(theirs: Any) -> None:
    if not torch.equal(batch(theirs, 1)[0], batch(theirs, 1)[0]):
        raise Wrong("the same generator gave two batches: pass generator=generator")
    if torch.equal(batch(theirs, 1)[0], batch(theirs, 2)[0]):
        raise Wrong(
            "two seeds gave one batch: sample the starts with torch.randint and the generator"
        )
    # So short that every start is sampled.
    starts = {int(t) for seed in range(9) for t in batch(theirs, seed, torch.arange(12))[0][:, 0]}
    if starts != {0, 1, 2, 3}:
        raise Wrong(
            f"the starts are off by one: of 12 ids a block of {BLOCK} with its targets "
            f"can start at 0 to 3; yours start at {sorted(starts)}"
        )


@CHECKS.check("the loss is -ln of the target's probability, on average")
def loss(theirs: Any) -> None:
    logits_btv = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    targets_bt = torch.tensor([[0, 1, 2], [3, 4, 0]])
    expected = float(-logits_btv.log_softmax(-1).gather(-1, targets_bt[..., None]).mean())
    with hint_on(
        "the axes do not fit: F.cross_entropy takes one row of logits for each target, (n, v) and "
        "(n,), so (b, t) become one axis first",
        RuntimeError,
        ValueError,
    ):
        result = theirs.loss_of(logits_btv, targets_bt)
    if torch.as_tensor(result).numel() != 1:
        raise Wrong(f"the loss is not averaged: it has {result.numel()} elements, one per target")
    if not isinstance(result, Tensor):
        raise Wrong(
            f"the loss is a plain {type(result).__name__}, without gradients: return the tensor"
        )
    actual = float(result)
    if abs(actual - expected) < 1e-4:
        return

    def mean_of(log_probs_btv: Tensor, targets_bt: Tensor = targets_bt) -> float:
        return float(-log_probs_btv.gather(-1, targets_bt[..., None]).mean())

    mistakes = {
        "the loss is not averaged: it is the sum over all targets": expected * 6,
        "the loss is averaged over b alone: divide by all b x t targets": expected * 3,
        "the loss is averaged over t alone: divide by all b x t targets": expected * 2,
        "the loss has the wrong sign: it is minus the logarithm": -expected,
        "the loss is in bits: take the natural logarithm": expected / math.log(2),
        "the loss is e to the power of what it should be (perplexity)": math.exp(expected),
        "the softmax is done twice: F.cross_entropy takes logits, not probabilities": mean_of(
            logits_btv.softmax(-1).log_softmax(-1)
        ),
        "the softmax is on the wrong axis: v is the last, not t": mean_of(
            logits_btv.log_softmax(1)
        ),
        "the softmax is on the wrong axis: v is the last, not b": mean_of(
            logits_btv.log_softmax(0)
        ),
        "the logarithm is missing: the loss is -ln(p)": mean_of(logits_btv.softmax(-1)),
        "the targets are shifted twice: get_batch has moved them already": mean_of(
            logits_btv[:, :-1].log_softmax(-1), targets_bt[:, 1:]
        ),
    }
    for hint, value in mistakes.items():
        if abs(actual - value) < 1e-4:
            raise Wrong(f"{hint}. It should be {expected:.4f}, and is {actual:.4f}")
    raise Wrong(f"the loss should be {expected:.4f}, and is {actual:.4f}: F.cross_entropy")


@CHECKS.check("the learning rate warms up, then falls along a cosine")
def schedule(theirs: Any) -> None:
    steps, warmup, peak, end = (RATES[key] for key in ("steps", "warmup_steps", "peak", "end"))

    def cosine(progress: float) -> float:
        return float(end + (peak - end) * (1 + math.cos(math.pi * progress)) / 2)

    rising = [float(peak * (step + 1) / warmup) for step in range(steps)]
    warming = rising[:warmup]
    falling = [cosine((step - warmup) / (steps - warmup)) for step in range(warmup, steps)]
    expected = warming + falling
    rates = [float(theirs.learning_rate_at(step, **RATES)) for step in range(steps)]

    def equal(a: list[float], b: list[float]) -> bool:
        return all(abs(x - y) < 1e-8 for x, y in zip(a, b, strict=True))

    if equal(rates, expected):
        return
    late = [cosine(step / steps) for step in range(warmup, steps)]
    mistakes = {
        "the learning rate never changes": len(set(rates)) == 1,
        "the warm-up is off by one, and the first step moves nothing": equal(
            rates[:warmup], [peak * step / warmup for step in range(warmup)]
        ),
        "the warm-up is missing or wrong": equal(rates[warmup:], falling),
        "the learning rate does not fall after the warm-up": equal(
            rates, [min(rate, peak) for rate in rising]
        ),
        "the cosine starts at step 0, not after the warm-up": equal(rates, warming + late),
        "the cosine is not halved: 1 + cos runs from 2 to 0": equal(
            rates[warmup:], [2 * rate - end for rate in falling]
        ),
        "the cosine falls to 0, not to `end`": equal(
            rates[warmup:], [(rate - end) * peak / (peak - end) for rate in falling]
        ),
        "the warm-up is a step too long, and goes beyond the peak: steps are counted from 0": equal(
            rates, [*warming, rising[warmup], *falling[1:]]
        ),
        "the cosine is wrong": equal(rates[:warmup], warming),
        "the learning rate is wrong": True,
    }
    hint = next(hint for hint, made in mistakes.items() if made)
    step = next(step for step in range(steps) if abs(rates[step] - expected[step]) >= 1e-8)
    raise Wrong(
        f"{hint}: at step {step} of {steps} the learning rate should be {expected[step]:.6f}, and "
        f"is {rates[step]:.6f}"
    )
