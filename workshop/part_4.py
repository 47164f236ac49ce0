"""What `gpt workshop check 4` asks of generate.py."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from workshop.checking import Part, Wrong

PART = Part("generate.py")
LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0])
BLOCK = 6


def draws(
    theirs: Any, count: int = 2000, logits_v: Tensor = LOGITS, **changes: Any
) -> Counter[int]:
    """How often each id was chosen of `count` times."""
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | changes
    generator = torch.Generator().manual_seed(5)
    return Counter(
        int(theirs.choose(logits_v.clone(), generator=generator, **settings)) for _ in range(count)
    )


@PART.check("temperature 0 takes the likeliest")
def greedy(theirs: Any) -> None:
    found = draws(theirs, 20, temperature=0.0)
    if set(found) != {0}:
        raise Wrong(f"at temperature 0 it is always the likeliest, id 0; yours chose {dict(found)}")


@PART.check("an id is drawn as often as it is likely")
def likely(theirs: Any) -> None:
    found, shares = draws(theirs), LOGITS.softmax(-1)
    for token, share in enumerate(shares.tolist()):
        seen = found[token] / 2000
        if abs(seen - share) > 0.05:
            raise Wrong(
                f"at temperature 1 id {token} should come {share:.0%} of the time, and came "
                f"{seen:.0%}: softmax, then torch.multinomial"
            )


@PART.check("the generator decides the draw")
def seeded(theirs: Any) -> None:
    if draws(theirs, 50) != draws(theirs, 50):
        raise Wrong("the same generator drew two ways: torch.multinomial(..., generator=generator)")


@PART.check("temperature divides the logits")
def temperature(theirs: Any) -> None:
    for value in (0.5, 2.0):
        seen = draws(theirs, temperature=value)[0] / 2000
        expected = float((LOGITS / value).softmax(-1)[0])
        multiplied = float((LOGITS * value).softmax(-1)[0])
        if abs(seen - expected) <= 0.05:
            continue
        if abs(seen - multiplied) <= 0.05:
            raise Wrong(
                f"at temperature {value} the likeliest came {seen:.0%} of the time, and should "
                f"{expected:.0%}: the logits are multiplied by the temperature; divide them"
            )
        raise Wrong(
            f"at temperature {value} the likeliest should come {expected:.0%} of the time, and "
            "came "
            f"{seen:.0%}: logits / temperature, before the softmax"
        )


@PART.check("top-k leaves k")
def top_k(theirs: Any) -> None:
    for k in (1, 2, 3):
        found = set(draws(theirs, top_k=k, temperature=2.0))
        if found != set(range(k)):
            raise Wrong(
                f"top_k={k} left {len(found)} ids, {sorted(found)}, and should leave "
                f"{list(range(k))}: is it off by one?"
            )
    if set(draws(theirs, top_k=99, temperature=5.0)) != set(range(5)):
        raise Wrong("a top_k above the vocabulary leaves all of it")


@PART.check("top-p leaves the fewest that reach p")
def top_p(theirs: Any) -> None:
    # Probabilities 0.64, 0.23, 0.09, 0.03, 0.01.
    for p, count in ((0.7, 2), (0.9, 3), (0.5, 1)):
        found = set(draws(theirs, top_p=p))
        if found != set(range(count)):
            raise Wrong(
                f"with probabilities 0.64, 0.23, 0.09, ... top_p={p} should leave {count} ids, and "
                f"left {sorted(found)}: the one that reaches p is still in"
            )
    both = set(draws(theirs, top_k=2, top_p=0.9))
    if both != {0, 1}:
        raise Wrong(f"top_k=2 and top_p=0.9 together left {sorted(both)}, and should [0, 1]")


class Counting(nn.Module):
    """After id n comes n + 1, after 9 comes 0; notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.given: list[list[int]] = []
        self.modes: list[tuple[bool, bool]] = []

    def forward(self, ids_bt: Tensor) -> Tensor:
        self.modes.append((self.training, torch.is_grad_enabled()))
        self.given.append(ids_bt[0].tolist())
        if ids_bt.shape[1] > BLOCK:
            raise Wrong(
                f"the model was given {ids_bt.shape[1]} ids, and has {BLOCK} positions: what is "
                "read "
                "is not cropped to the last block_size"
            )
        return nn.functional.one_hot((ids_bt + 1) % 10, 10).float() * 50 + self.weight


def written(theirs: Any, model: Counting, ids: list[int], count: int) -> list[int]:
    generator = torch.Generator().manual_seed(0)
    found = theirs.generate(model, list(ids), count, block_size=BLOCK, generator=generator)
    return [int(token) for token in found]


@PART.check("a text goes on where it was")
def goes_on(theirs: Any) -> None:
    for ids, count in (([3], 3), ([1, 2, 3], 2), ([8], 0)):
        found = written(theirs, Counting(), ids, count)
        expected = ids + [(ids[-1] + 1 + n) % 10 for n in range(count)]
        if found != expected:
            raise Wrong(
                f"a model that counts should go on from {ids} to {expected}, not {found}: the "
                "logits "
                "of the last position decide; return the prompt too"
            )


@PART.check("of a long text the last block is read")
def cropped(theirs: Any) -> None:
    model = Counting()
    found = written(theirs, model, list(range(9)), 8)
    if found != [n % 10 for n in range(17)]:
        raise Wrong(f"from 0 ... 8 it should count on to 6; it wrote {found[9:]}")
    for number, given in enumerate(model.given):
        expected = [n % 10 for n in range(17)][: 9 + number][-BLOCK:]
        if given != expected:
            raise Wrong(
                f"for new id {number} the model should read the last {BLOCK}, {expected}, and was "
                f"given {given}"
            )


@PART.check("writing is done without dropout and gradients")
def modes(theirs: Any) -> None:
    model = Counting()
    model.train()
    written(theirs, model, [1], 3)
    if any(training for training, _ in model.modes):
        raise Wrong("the model was in training mode while it wrote: eval mode is forgotten")
    if any(gradients for _, gradients in model.modes):
        raise Wrong("gradients were kept while writing: @torch.no_grad()")
