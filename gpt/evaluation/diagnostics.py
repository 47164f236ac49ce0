"""What a training's curve says, in words: what went wrong, since when, and what to try.

A pure function of the curve. It knows neither files nor models, and changes nothing.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Point = Mapping[str, float]

# Below these a difference is taken for the noise of a validation split or of single batches.
LEARNED = 0.05  # share of the loss of guessing that has to be gone
ROSE = 0.01  # relative rise of the validation loss
STOOD_STILL = 0.005  # relative fall of the validation loss over half of the looks
STILL_FALLS = 0.01  # relative fall of the validation loss from the last look but one to the last
# A spike stands so many times the usual distance (and at least so many nats) above its neighbours.
SPIKE_TIMES, SPIKE_NATS, NEIGHBOURS = 8.0, 0.3, 9
ALWAYS_CLIPPED = 0.95
MANY_DEAD = 0.5


@dataclass(frozen=True)
class Finding:
    """`what` in a few words, `why` in figures, `advice` in params.yaml's names."""

    what: str
    why: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}; {self.advice}"


def diagnose(curve: Sequence[Point], guessing: float) -> list[Finding]:
    """What `curve` shows, the gravest first; empty where it shows nothing to mend.

    A point has `step` and some of `train_loss`, `val_loss`, `clip_rate`, `dead_units`; what is
    missing or NaN is left out. `guessing` is ln(vocab_size), the loss of knowing nothing.
    """
    looks, train = _series(curve, "val_loss"), _series(curve, "train_loss")
    found = [_spike(train)]
    if looks:
        not_learning = _not_learning(looks, guessing)
        overfitting = _overfitting(looks, train)
        found = [not_learning, *found, overfitting]
        if not (not_learning or overfitting):
            found.append(_plateau(looks) or _unfinished(looks))
    found += [_clipped(_series(curve, "clip_rate")), _dead(_series(curve, "dead_units"))]
    return [finding for finding in found if finding is not None]


Series = list[tuple[int, float]]


def _series(curve: Sequence[Point], column: str) -> Series:
    values = [(int(point["step"]), float(point.get(column, math.nan))) for point in curve]
    return [(step, value) for step, value in values if math.isfinite(value)]


def _not_learning(looks: Series, guessing: float) -> Finding | None:
    best = min(value for _, value in looks)
    if looks[-1][0] == 0 or best < (1 - LEARNED) * guessing:
        return None
    return Finding(
        "not learning",
        f"the best validation loss is {best:.3f}, and guessing has {guessing:.3f}",
        "try train.learning_rate three times as large, then three times as small, and more "
        "train.steps; look at the text in data/corpus",
    )


def _spike(train: Series) -> Finding | None:
    """The highest point that stands far above those before it."""
    worst: tuple[float, int, float, float] | None = None
    for i in range(NEIGHBOURS, len(train)):
        step, value = train[i]
        before = [loss for _, loss in train[i - NEIGHBOURS : i]]
        usual = statistics.median(before)
        # 1.48 median deviations are one standard deviation of a normal distribution.
        spread = 1.48 * statistics.median(abs(loss - usual) for loss in before)
        if value - usual > max(SPIKE_NATS, SPIKE_TIMES * spread):
            worst = max(worst or (0.0, 0, 0.0, 0.0), (value - usual, step, usual, value))
    if worst is None:
        return None
    _, step, usual, value = worst
    after = [loss for at, loss in train if at > step]
    back = f"back at {min(after):.3f} later" if after and min(after) <= usual else "and stayed up"
    return Finding(
        f"spike at step {step}",
        f"the training loss went from {usual:.3f} to {value:.3f}, {back}",
        "try half of train.learning_rate, twice train.warmup_steps, or train.grad_clip 1.0",
    )


def _overfitting(looks: Series, train: Series) -> Finding | None:
    best_step, best = min(looks, key=lambda look: look[1])
    after = [value for step, value in looks if step > best_step]
    # Two looks at least, all of them above: one may be bad luck.
    if len(after) < 2 or min(after[-2:]) <= (1 + ROSE) * best:
        return None
    then, now = _around(train, best_step), _around(train, looks[-1][0])
    fell = ""
    if then is not None and now is not None:
        if now >= then:
            return None  # the training loss rose too, so it is no overfitting
        fell = f", and training fell from {then:.3f} to {now:.3f}"
    return Finding(
        f"overfitting since step {best_step}",
        f"the validation loss rose from {best:.3f} to {after[-1]:.3f}{fell}",
        f"try train.steps {best_step}, model.dropout 0.1 to 0.2, a smaller model or more text; "
        "train.keep best keeps the best look's weights",
    )


def _around(train: Series, step: int) -> float | None:
    """The mean of the points nearest to a step."""
    near = sorted(train, key=lambda point: abs(point[0] - step))[:5]
    return statistics.fmean(value for _, value in near) if near else None


def _plateau(looks: Series) -> Finding | None:
    half = len(looks) // 2
    if half < 3:
        return None
    before = min(value for _, value in looks[: len(looks) - half])
    since, best = looks[len(looks) - half - 1][0], min(value for _, value in looks[-half:])
    if best < (1 - STOOD_STILL) * before:
        return None
    return Finding(
        f"plateau since step {since}",
        f"the validation loss stands at {best:.3f}",
        "try a larger train.learning_rate or model (n_layer, n_embd), or be content with fewer "
        "train.steps",
    )


def _unfinished(looks: Series) -> Finding | None:
    if len(looks) < 3 or looks[-1][1] >= (1 - STILL_FALLS) * looks[-2][1]:
        return None
    return Finding(
        "still falling",
        f"the last look went from {looks[-2][1]:.3f} to {looks[-1][1]:.3f}",
        "more train.steps would buy more",
    )


def _clipped(rates: Series) -> Finding | None:
    late = [value for _, value in rates[len(rates) // 2 :]]
    if not late or statistics.fmean(late) < ALWAYS_CLIPPED:
        return None
    return Finding(
        "clipped at nearly every step",
        f"{statistics.fmean(late):.0%} of the later gradients were cut to train.grad_clip",
        "so that it, and not the loss, sets the length of an update: try half of "
        "train.learning_rate or twice train.grad_clip",
    )


def _dead(shares: Series) -> Finding | None:
    if not shares or shares[-1][1] <= MANY_DEAD:
        return None
    return Finding(
        "many dead units",
        f"{shares[-1][1]:.0%} of the MLPs' units answer to no token of a look",
        "try a smaller train.learning_rate, or model.n_embd: they do nothing",
    )
