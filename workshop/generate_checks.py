"""The checks of `gpt workshop check 4`: generate.py."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from workshop.checking import Checklist, Wrong, hint_on

CHECKS = Checklist()
LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0])
BLOCK = 6


def sample_counts(
    theirs: Any,
    count: int = 2000,
    logits_v: Tensor = LOGITS,
    hint: str = "choose fails at options that it should take",
    **changes: Any,
) -> Counter[int]:
    """Counts how often each id was chosen in `count` calls; `hint` is for an error in PyTorch."""
    options = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | changes
    rng = torch.Generator().manual_seed(5)
    with hint_on(hint, RuntimeError, IndexError, ZeroDivisionError, ValueError):
        return Counter(
            int(theirs.choose(logits_v.clone(), generator=rng, **options)) for _ in range(count)
        )


@CHECKS.check("temperature 0 takes the most likely id")
def greedy(theirs: Any) -> None:
    no_special_case = "temperature 0 is not a special case: dividing by it gives inf and nan"
    counts = sample_counts(theirs, 20, hint=no_special_case, temperature=0.0)
    if set(counts) == {4}:
        raise Wrong("at temperature 0 the least likely id is taken, not the most likely")
    if set(counts) != {0}:
        raise Wrong(f"at temperature 0 the most likely id is 0; yours chose {dict(counts)}")


@CHECKS.check("an id is sampled with its probability")
def likely(theirs: Any) -> None:
    no_probs = (
        "there are no probabilities to sample from: softmax makes them of logits, and top_k=0 and "
        "top_p=1 keep all of them"
    )
    counts = sample_counts(theirs, hint=no_probs)
    for token, prob in enumerate(LOGITS.softmax(-1).tolist()):
        frequency = counts[token] / 2000
        if abs(frequency - prob) <= 0.05:
            continue
        # Without top-p, which would cut after an id whose probability is 1 or more.
        without_top_p = sample_counts(theirs, hint=no_probs, top_p=1e9)
        if max(without_top_p.values()) < 2 * min(without_top_p[token] for token in range(5)):
            raise Wrong(
                "the softmax is on the wrong axis, or there is none: all five ids are equally "
                "frequent, whatever their logits"
            )
        if set(without_top_p) == {0}:
            raise Wrong("nothing is sampled: at temperature 1 the most likely id came every time")
        raise Wrong(
            f"samples do not follow the probabilities: at temperature 1 id {token} should come "
            f"{prob:.0%} of the time, and came {frequency:.0%}; is there a softmax before sampling?"
        )
    if sample_counts(theirs, hint=no_probs, logits_v=LOGITS.flip(0)).most_common(1)[0][0] != 4:
        raise Wrong(
            "an index of the sorted list is taken for an id: of logits -2, -1, 0, 1, 2 the most "
            "likely is id 4, though it comes first when sorted"
        )


@CHECKS.check("the generator decides the sample")
def seeded(theirs: Any) -> None:
    if sample_counts(theirs, 50) != sample_counts(theirs, 50):
        raise Wrong(
            "the same generator gave two samples: torch.multinomial(..., generator=generator)"
        )


@CHECKS.check("temperature divides the logits")
def temperature(theirs: Any) -> None:
    for value in (0.5, 2.0):
        frequency = sample_counts(theirs, temperature=value)[0] / 2000
        expected = float((LOGITS / value).softmax(-1)[0])
        if abs(frequency - expected) <= 0.05:
            continue
        hint = "the temperature is applied in the wrong step"
        if abs(frequency - float((LOGITS * value).softmax(-1)[0])) <= 0.05:
            hint = "the logits are multiplied by the temperature"
        elif abs(frequency - float(LOGITS.softmax(-1)[0])) <= 0.05:
            hint = "the temperature is not used"
        raise Wrong(
            f"{hint}: at {value} the most likely id came {frequency:.0%} of the time, and should "
            f"{expected:.0%}; divide the logits by it, before the softmax"
        )


@CHECKS.check("top-k keeps k ids")
def top_k(theirs: Any) -> None:
    # Not k = 1 first: if that keeps no id, there is only an error to report.
    for k in (2, 3, 1):
        empty = f"top-k is off by one: top_k={k} keeps no id to sample"
        kept = set(sample_counts(theirs, hint=empty, top_k=k, temperature=2.0))
        if kept == set(range(k)):
            continue
        without_top_p = sample_counts(theirs, hint=empty, top_k=k, top_p=1e9, temperature=2.0)
        if set(without_top_p) == set(range(k)):
            raise Wrong(
                f"top-p drops the id that reaches p: top_k={k} with top_p=1, which should keep "
                f"all, kept {sorted(kept)}"
            )
        hint = "top-k keeps the wrong ids"
        if kept == set(range(5)):
            hint = "top-k is not used"
        elif kept in (set(range(k + 1)), set(range(k - 1))):
            hint = "top-k is off by one"
        elif kept == set(range(5 - k, 5)):
            hint = "top-k keeps the least likely"
        raise Wrong(f"{hint}: top_k={k} kept ids {sorted(kept)}, and should {list(range(k))}")
    above = "a top_k above the vocabulary should keep all of it: there are 5 ids, and top_k=99"
    if set(sample_counts(theirs, hint=above, top_k=99, temperature=5.0)) != set(range(5)):
        raise Wrong(above)


@CHECKS.check("top-p keeps the fewest ids that reach p")
def top_p(theirs: Any) -> None:
    # Probabilities 0.64, 0.23, 0.09, 0.03, 0.01.
    for p, count in ((0.7, 2), (0.9, 3), (0.5, 1)):
        empty = f"top-p drops the id that reaches p: top_p={p} keeps no id to sample"
        kept = set(sample_counts(theirs, hint=empty, top_p=p))
        if kept != set(range(count)):
            hint = "top-p keeps the wrong ids"
            if kept == set(range(5)):
                hint = "top-p is not used"
            elif kept == set(range(count + 1)):
                hint = "top-p keeps one id too many"
            elif kept == set(range(count - 1)):
                hint = "top-p drops the id that reaches p"
            raise Wrong(
                f"{hint}: of probabilities 0.64, 0.23, 0.09, ... top_p={p} should keep {count} "
                f"ids, and kept {sorted(kept)}; the id that reaches p is kept too"
            )
    kept = set(sample_counts(theirs, top_k=2, top_p=0.9))
    if kept != {0, 1}:
        raise Wrong(
            f"top-k and top-p do not combine: top_k=2 and top_p=0.9 kept {sorted(kept)}, and "
            "should [0, 1]"
        )


class Counting(nn.Module):
    """Predicts n + 1 after id n, 0 after 9, with logit `sharpness`; records its inputs."""

    def __init__(self, sharpness: float = 50.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.sharpness = sharpness
        self.inputs: list[list[int]] = []
        self.modes: list[tuple[bool, bool]] = []

    def forward(self, ids_bt: Tensor) -> Tensor:
        if ids_bt.dim() != 2:
            raise Wrong(
                f"the model takes (b, t), and got {tuple(ids_bt.shape)}: a single text is b = 1"
            )
        self.modes.append((self.training, torch.is_grad_enabled()))
        self.inputs.append(ids_bt[0].tolist())
        if ids_bt.shape[1] > BLOCK:
            raise Wrong(
                "the text is not cropped to the last block_size: the model got "
                f"{ids_bt.shape[1]} ids, and has {BLOCK} positions"
            )
        return nn.functional.one_hot((ids_bt + 1) % 10, 10).float() * self.sharpness + self.weight


def generate(theirs: Any, model: Counting, ids: list[int], count: int, **kw: float) -> list[int]:
    generator = torch.Generator().manual_seed(0)
    ids = theirs.generate(model, ids, count, block_size=BLOCK, generator=generator, **kw)
    return [int(token) for token in ids]


def continuation(ids: list[int], count: int) -> list[int]:
    """`ids` and the `count` ids that Counting predicts after them."""
    return ids + [(ids[-1] + 1 + n) % 10 for n in range(count)]


# Mistakes in taking the next id's logits from (b, t, v), where it should be [0, -1].
AXES = "v is the last axis, and t the one before"
LOGIT_MISTAKES: dict[str, list[Callable[[Tensor], Tensor]]] = {
    "the logits of the first position are taken": [lambda x_btv: x_btv[0, 0]],
    f"the wrong axis is indexed: {AXES}": [
        lambda x_btv: x_btv[0, :, -1],
        lambda x_btv: nn.functional.one_hot(x_btv[0].argmax(0)[-1], 10),
    ],
    f"the softmax is on the wrong axis: {AXES}": [lambda x_btv: x_btv.softmax(1)[0, -1]],
    "the largest logits of all positions are taken": [lambda x_btv: x_btv[0].amax(0)],
    "the logits of all positions are added up": [lambda x_btv: x_btv[0].sum(0)],
}


def logit_mistake(theirs: Any) -> str:
    """The mistake in the use of the model's logits, by its name if it is a known one."""
    prompts = [1, 2, 3], [3]
    texts = [generate(theirs, Counting(), list(ids), 3, temperature=0.0) for ids in prompts]
    if texts == [continuation(ids, 3) for ids in prompts]:
        return "the logits do not reach the sampling unchanged: is a softmax applied twice?"

    def continued(prompt: list[int], logits_of: Callable[[Tensor], Tensor]) -> list[int]:
        ids = list(prompt)
        for _ in range(3):
            ids.append(int(logits_of(Counting()(torch.tensor([ids]))).argmax()))
        return ids

    for hint, wrong in LOGIT_MISTAKES.items():
        if any(texts == [continued(ids, logits_of) for ids in prompts] for logits_of in wrong):
            return f"{hint}; the last position predicts the next id"
    return "the wrong ids are chosen: the logits of the last position predict the next id"


@CHECKS.check("the text continues its prompt")
def continues(theirs: Any) -> None:
    for ids, count in (([3], 3), ([1, 2, 3], 2), ([8], 0)):
        prompt = list(ids)
        text = generate(theirs, Counting(), prompt, count)
        expected = continuation(ids, count)
        if text == expected:
            if prompt != ids:
                raise Wrong("the list of the prompt itself was changed: append to a copy of it")
            continue
        hint = "the number of new ids is wrong"
        if expected and text == expected[len(ids) :]:
            hint = "the prompt is left out"
        elif len(text) - len(expected) in (1, -1):
            hint = f"one id too {'many' if len(text) > len(expected) else 'few'} is generated"
        elif len(text) == len(expected):
            hint = logit_mistake(theirs)
        raise Wrong(f"{hint}. A model that counts should continue {ids} to {expected}, not {text}")


@CHECKS.check("the model gets the last block of a long text")
def cropped(theirs: Any) -> None:
    counting = [n % 10 for n in range(17)]
    # First a prompt longer than a block, then a text that becomes so.
    for length in (9, 1):
        model = Counting()
        text = generate(theirs, model, counting[:length], 17 - length)
        check_inputs(length, text, model.inputs)
        if text == counting:
            continue
        if text == counting[17 - len(text) :]:
            raise Wrong(
                "the beginning of the text is lost: crop the model's input, not the text; of 17 "
                f"ids {len(text)} are left"
            )
        raise Wrong(f"from 0 ... {length - 1} it should count up to 6; it gave {text[length:]}")


def check_inputs(length: int, text: list[int], inputs: list[list[int]]) -> None:
    """Raises Wrong unless each new id was predicted from the last block of the text before it."""
    if len(text) < 17:
        return
    for number, ids in enumerate(inputs):
        before = text[: length + number]
        expected = before[-BLOCK:]
        if ids == expected:
            continue
        hint = "the wrong ids are read"
        if ids == before[:BLOCK]:
            hint = "the beginning is read, not the end"
        elif len(ids) < len(expected) and ids == before[len(before) - len(ids) :]:
            hint = f"too little is read, {len(ids)} of {len(expected)} ids"
        raise Wrong(f"{hint}: for new id {number} the model should get {expected}, and got {ids}")


@CHECKS.check("the sampling options reach every choice")
def options(theirs: Any) -> None:
    for name, value in (("temperature", 0.0), ("top_k", 1), ("top_p", 0.01)):
        # So flat that without the option it could hardly count.
        text = generate(theirs, Counting(sharpness=1.0), [3], 20, **{name: value})
        if text != continuation([3], 20):
            raise Wrong(
                f"{name} is not passed on: with {name}={value:g} generate should always take the "
                "most likely id"
            )


@CHECKS.check("generation runs without dropout and gradients")
def modes(theirs: Any) -> None:
    model = Counting()
    model.train()
    generate(theirs, model, [1], 3)
    if any(training for training, _ in model.modes):
        raise Wrong("eval mode is forgotten: the model was in training mode during generation")
    if any(gradients for _, gradients in model.modes):
        raise Wrong("gradients were on during generation: @torch.no_grad()")
