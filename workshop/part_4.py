"""What `gpt workshop check 4` asks of generate.py."""

from collections import Counter
from collections.abc import Callable
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


def drawn(theirs: Any, said: str, **changes: Any) -> Counter[int]:
    """`draws`; where they end in an error of PyTorch's, that is `said`."""
    try:
        return draws(theirs, **changes)
    except NotImplementedError:
        raise
    except (RuntimeError, IndexError, ZeroDivisionError, ValueError) as error:
        raise Wrong(said) from error


@PART.check("temperature 0 takes the likeliest")
def greedy(theirs: Any) -> None:
    undivided = "temperature 0 is not treated apart: dividing by it gives inf and nan"
    found = drawn(theirs, undivided, count=20, temperature=0.0)
    if set(found) == {4}:
        raise Wrong("at temperature 0 the least likely id is taken, not the likeliest")
    if set(found) != {0}:
        raise Wrong(f"at temperature 0 it is always the likeliest, id 0; yours chose {dict(found)}")


@PART.check("an id is drawn as often as it is likely")
def likely(theirs: Any) -> None:
    unlikely = (
        "there are no probabilities to draw from: softmax makes them of logits, top_k=0 leaves all "
        "of them and top_p=1 too"
    )
    found, shares = drawn(theirs, unlikely), LOGITS.softmax(-1)
    for token, share in enumerate(shares.tolist()):
        seen = found[token] / 2000
        if abs(seen - share) <= 0.05:
            continue
        # Without top-p, which takes probabilities of 1 each, or greater ones, for the whole.
        alone = drawn(theirs, unlikely, top_p=1e9)
        if max(alone.values()) < 2 * min(alone[token] for token in range(5)):
            raise Wrong(
                "the softmax is on the wrong axis, or there is none: all five ids come equally "
                "often, whatever their logits"
            )
        if set(alone) == {0}:
            raise Wrong("nothing is drawn: at temperature 1 it is the likeliest each time")
        raise Wrong(
            f"the draw does not follow the probabilities: at temperature 1 id {token} should come "
            f"{share:.0%} of the time, and came {seen:.0%}; is there a softmax before the draw?"
        )
    if drawn(theirs, unlikely, logits_v=LOGITS.flip(0)).most_common(1)[0][0] != 4:
        raise Wrong(
            "a place in the sorted list is taken for an id: of logits -2, -1, 0, 1, 2 the "
            "likeliest is id 4, though it stands first when sorted"
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
        if abs(seen - expected) <= 0.05:
            continue
        said = "the temperature is in the wrong place"
        if abs(seen - float((LOGITS * value).softmax(-1)[0])) <= 0.05:
            said = "the logits are multiplied by the temperature"
        elif abs(seen - float(LOGITS.softmax(-1)[0])) <= 0.05:
            said = "the temperature is forgotten"
        raise Wrong(
            f"{said}: at {value} the likeliest came {seen:.0%} of the time, and should "
            f"{expected:.0%}; divide the logits by it, before the softmax"
        )


@PART.check("top-k leaves k")
def top_k(theirs: Any) -> None:
    # Not k = 1 first: where that leaves none, there is nothing to see but an error.
    for k in (2, 3, 1):
        nothing = f"top-k is off by one: top_k={k} leaves nothing to draw from"
        found = set(drawn(theirs, nothing, top_k=k, temperature=2.0))
        if found == set(range(k)):
            continue
        if set(drawn(theirs, nothing, top_k=k, top_p=1e9, temperature=2.0)) == set(range(k)):
            raise Wrong(
                f"top-p drops the last that reaches p: top_k={k} with top_p=1, which is to keep "
                f"all, left {sorted(found)}"
            )
        said = "top-k keeps the wrong ids"
        if found == set(range(5)):
            said = "top-k is forgotten"
        elif found in (set(range(k + 1)), set(range(k - 1))):
            said = "top-k is off by one"
        elif found == set(range(5 - k, 5)):
            said = "top-k keeps the least likely"
        raise Wrong(f"{said}: top_k={k} left ids {sorted(found)}, and should {list(range(k))}")
    too_many = "a top_k above the vocabulary is to leave all of it: there are 5 ids, and top_k=99"
    if set(drawn(theirs, too_many, top_k=99, temperature=5.0)) != set(range(5)):
        raise Wrong(too_many)


@PART.check("top-p leaves the fewest that reach p")
def top_p(theirs: Any) -> None:
    # Probabilities 0.64, 0.23, 0.09, 0.03, 0.01.
    for p, count in ((0.7, 2), (0.9, 3), (0.5, 1)):
        nothing = f"top-p drops the one that reaches p: top_p={p} leaves nothing to draw from"
        found = set(drawn(theirs, nothing, top_p=p))
        if found != set(range(count)):
            said = "top-p keeps the wrong ids"
            if found == set(range(5)):
                said = "top-p is forgotten"
            elif found == set(range(count + 1)):
                said = "top-p keeps one too many"
            elif found == set(range(count - 1)):
                said = "top-p drops the one that reaches p"
            raise Wrong(
                f"{said}: of probabilities 0.64, 0.23, 0.09, ... top_p={p} should leave {count} "
                f"ids, and left {sorted(found)}; the one that reaches p is still in"
            )
    both = set(draws(theirs, top_k=2, top_p=0.9))
    if both != {0, 1}:
        raise Wrong(
            f"top-k and top-p do not go together: top_k=2 and top_p=0.9 left {sorted(both)}, and "
            "should [0, 1]"
        )


class Counting(nn.Module):
    """After id n comes n + 1, after 9 comes 0, the more surely the larger `sure`.

    Notes what it is given.
    """

    def __init__(self, sure: float = 50.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.sure = sure
        self.given: list[list[int]] = []
        self.modes: list[tuple[bool, bool]] = []

    def forward(self, ids_bt: Tensor) -> Tensor:
        if ids_bt.dim() != 2:
            raise Wrong(
                f"the model reads (b, t), and was given {tuple(ids_bt.shape)}: one text is b = 1"
            )
        self.modes.append((self.training, torch.is_grad_enabled()))
        self.given.append(ids_bt[0].tolist())
        if ids_bt.shape[1] > BLOCK:
            raise Wrong(
                "the text is not cropped to the last block_size: the model was given "
                f"{ids_bt.shape[1]} ids, and has {BLOCK} positions"
            )
        return nn.functional.one_hot((ids_bt + 1) % 10, 10).float() * self.sure + self.weight


def written(theirs: Any, model: Counting, ids: list[int], count: int, **dials: float) -> list[int]:
    generator = torch.Generator().manual_seed(0)
    found = theirs.generate(model, ids, count, block_size=BLOCK, generator=generator, **dials)
    return [int(token) for token in found]


def counted(ids: list[int], count: int) -> list[int]:
    """What Counting goes on to."""
    return ids + [(ids[-1] + 1 + n) % 10 for n in range(count)]


AXES = "v is the last axis, and t the one before"
# What is taken for the logits of the next id, from (b, t, v), where it should be [0, -1].
TAKEN: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = (
    ("the logits of the first position are taken", lambda x_btv: x_btv[0, 0]),
    (f"the wrong axis is looked at: {AXES}", lambda x_btv: x_btv[0, :, -1]),
    (
        f"the wrong axis is looked at: {AXES}",
        lambda x_btv: nn.functional.one_hot(x_btv[0].argmax(0)[-1], 10),
    ),
    (f"the softmax is on the wrong axis: {AXES}", lambda x_btv: x_btv.softmax(1)[0, -1]),
    ("the largest logits of all positions are taken", lambda x_btv: x_btv[0].amax(0)),
    ("the logits of all positions are added up", lambda x_btv: x_btv[0].sum(0)),
)


def goes_on_wrongly(theirs: Any) -> str:
    """A mistake in what is taken of the model's logits, by its name where it is a known one."""
    prompts = [1, 2, 3], [3]
    found = [written(theirs, Counting(), list(ids), 3, temperature=0.0) for ids in prompts]
    if found == [counted(ids, 3) for ids in prompts]:
        return "the logits do not reach the draw as they are: a softmax may be done twice"
    for said, taken in TAKEN:
        expected = []
        for prompt in prompts:
            ids = list(prompt)
            for _ in range(3):
                ids.append(int(taken(Counting()(torch.tensor([ids]))).argmax()))
            expected.append(ids)
        if found == expected:
            return f"{said}; the last position decides"
    return "the wrong ids are chosen: the logits of the last position decide"


@PART.check("a text goes on where it was")
def goes_on(theirs: Any) -> None:
    for ids, count in (([3], 3), ([1, 2, 3], 2), ([8], 0)):
        prompt = list(ids)
        found = written(theirs, Counting(), prompt, count)
        expected = counted(ids, count)
        if found == expected:
            if prompt != ids:
                raise Wrong("the list of the prompt itself was changed: go on in a copy of it")
            continue
        said = "the number of new ids is wrong"
        if expected and found == expected[len(ids) :]:
            said = "the prompt is left out"
        elif len(found) - len(expected) in (1, -1):
            said = f"one id too {'many' if len(found) > len(expected) else 'few'} is written"
        elif len(found) == len(expected):
            said = goes_on_wrongly(theirs)
        raise Wrong(
            f"{said}. A model that counts should go on from {ids} to {expected}, not {found}"
        )


@PART.check("of a long text the last block is read")
def cropped(theirs: Any) -> None:
    numbers = [n % 10 for n in range(17)]
    # First a text that is too long from its beginning on, then one that grows.
    for begun in (9, 1):
        model = Counting()
        found = written(theirs, model, numbers[:begun], 17 - begun)
        reads_the_end(begun, found, model.given)
        if found == numbers:
            continue
        if found == numbers[17 - len(found) :]:
            raise Wrong(
                "the beginning of the text is lost: crop what the model reads, not the text; of 17 "
                f"ids {len(found)} are left"
            )
        raise Wrong(f"from 0 ... {begun - 1} it should count on to 6; it wrote {found[begun:]}")


def reads_the_end(begun: int, found: list[int], given_each: list[list[int]]) -> None:
    """Raises Wrong where not the last block of the text was read for each new id."""
    if len(found) < 17:
        return
    for number, given in enumerate(given_each):
        text = found[: begun + number]
        expected = text[-BLOCK:]
        if given == expected:
            continue
        said = "the wrong part of the text is read"
        if given == text[:BLOCK]:
            said = "the beginning is read, not the end"
        elif len(given) < len(expected) and given == text[len(text) - len(given) :]:
            said = f"too little is read, {len(given)} of {len(expected)} ids"
        raise Wrong(
            f"{said}: for new id {number} the model should be given {expected}, and was {given}"
        )


@PART.check("the dials reach every choice")
def dials(theirs: Any) -> None:
    for name, value in (("temperature", 0.0), ("top_k", 1), ("top_p", 0.01)):
        # So unsure that without the dial it could hardly count.
        found = written(theirs, Counting(sure=1.0), [3], 20, **{name: value})
        if found != counted([3], 20):
            raise Wrong(
                f"{name} is not passed on: with {name}={value:g} generate is to take the likeliest "
                "each time"
            )


@PART.check("writing is done without dropout and gradients")
def modes(theirs: Any) -> None:
    model = Counting()
    model.train()
    written(theirs, model, [1], 3)
    if any(training for training, _ in model.modes):
        raise Wrong("eval mode is forgotten: the model was in training mode while it wrote")
    if any(gradients for _, gradients in model.modes):
        raise Wrong("gradients were kept while writing: @torch.no_grad()")
