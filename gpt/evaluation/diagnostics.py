"""What a training's curve shows, in words: what went wrong, since when, and what to try.

A pure function of the curve, which gpt/callbacks.py measures.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Point = Mapping[str, float]
Series = list[tuple[int, float]]

# Differences below these count as noise of a validation split or of single batches.
MIN_LEARNED = 0.05  # of the uniform baseline's loss, the fraction that has to be gone
OVERFITTING_REL = 0.01  # rise of the validation loss
PLATEAU_REL = 0.005  # fall of the validation loss over half of the evaluations
UNFINISHED_REL = 0.01  # fall of the validation loss in the last evaluation
# A spike is this many usual deviations, and this many nats, above the points before it.
SPIKE_DEVIATIONS, SPIKE_NATS, SPIKE_WINDOW = 8.0, 0.3, 9
ALWAYS_CLIPPED = 0.95
MANY_DEAD = 0.5


@dataclass(frozen=True)
class Finding:
    """`title` in a few words, `evidence` in figures, `advice` in params.yaml's names."""

    title: str
    evidence: str
    advice: str

    def __str__(self) -> str:
        return f"{self.title}: {self.evidence}; {self.advice}"


def diagnose(curve: Sequence[Point], uniform_loss: float) -> list[Finding]:
    """The problems that `curve` shows, the gravest first; empty where it shows none.

    A point has `step` and some of `train_loss`, `val_loss`, `clip_rate`, `dead_units`; missing
    values and NaN are skipped. `uniform_loss` is ln(vocab_size), the loss of a uniform guess.
    """
    val, train = _series(curve, "val_loss"), _series(curve, "train_loss")
    findings = [_spike(train)]
    if val:
        not_learning = _not_learning(val, uniform_loss)
        overfitting = _overfitting(val, train)
        findings = [not_learning, *findings, overfitting]
        if not (not_learning or overfitting):
            findings.append(_plateau(val) or _unfinished(val))
    findings += [_clipped(_series(curve, "clip_rate")), _dead(_series(curve, "dead_units"))]
    return [finding for finding in findings if finding is not None]


def beaten_by_bigram(bits_per_byte: float, bigram: float) -> Finding | None:
    """What is wrong with a model that predicts worse than counted pairs of tokens, if it does."""
    if bits_per_byte <= bigram:
        return None
    return Finding(
        "worse than a bigram",
        f"{bits_per_byte:.3f} bits per byte, and counted pairs of tokens have {bigram:.3f}",
        "it has hardly learned yet: try more train.steps, or another train.learning_rate",
    )


def _series(curve: Sequence[Point], column: str) -> Series:
    values = [(int(point["step"]), float(point.get(column, math.nan))) for point in curve]
    return [(step, value) for step, value in values if math.isfinite(value)]


def _not_learning(val: Series, uniform_loss: float) -> Finding | None:
    best = min(loss for _, loss in val)
    learned = best < (1 - MIN_LEARNED) * uniform_loss or uniform_loss == 0  # of a single token
    if learned or val[-1][0] == 0:
        return None
    return Finding(
        "not learning",
        f"the best validation loss is {best:.3f}, and a uniform guess has {uniform_loss:.3f}",
        "try train.learning_rate three times as large, then three times as small, and more "
        "train.steps; read the text in data/corpus",
    )


def _spike(train: Series) -> Finding | None:
    """The point that is highest above those before it."""
    spikes = []
    for i in range(SPIKE_WINDOW, len(train)):
        step, loss = train[i]
        before = [loss for _, loss in train[i - SPIKE_WINDOW : i]]
        median = statistics.median(before)
        # 1.48 median deviations are one standard deviation of a normal distribution.
        deviation = 1.48 * statistics.median(abs(loss - median) for loss in before)
        if loss - median > max(SPIKE_NATS, SPIKE_DEVIATIONS * deviation):
            spikes.append((loss - median, step, median, loss))
    if not spikes:
        return None
    _, step, median, loss = max(spikes)
    after = [loss for later, loss in train if later > step]
    back = after and min(after) <= median
    return Finding(
        f"spike at step {step}",
        f"the training loss rose from {median:.3f} to {loss:.3f} "
        + (f"and came back to {min(after):.3f}" if back else "and stayed up"),
        "try half of train.learning_rate, twice train.warmup_steps, or half of train.grad_clip",
    )


def _overfitting(val: Series, train: Series) -> Finding | None:
    best_step, best = min(val, key=lambda point: point[1])
    after = [loss for step, loss in val if step > best_step]
    # At least two evaluations, all of them above: a single one may be bad luck.
    if len(after) < 2 or min(after[-2:]) <= (1 + OVERFITTING_REL) * best:
        return None
    then, now = _around(train, best_step), _around(train, val[-1][0])
    fall = ""
    if then is not None and now is not None:
        if now >= then:
            return None  # the training loss rose too, so it is no overfitting
        fall = f", while the training loss fell from {then:.3f} to {now:.3f}"
    return Finding(
        f"overfitting since step {best_step}",
        f"the validation loss rose from {best:.3f} to {after[-1]:.3f}{fall}",
        f"try train.steps {best_step}, more model.dropout, a smaller model or more text; "
        "train.keep best keeps the weights of the best evaluation",
    )


def _around(train: Series, step: int) -> float | None:
    """The mean of the five points nearest to a step."""
    nearest = sorted(train, key=lambda point: abs(point[0] - step))[:5]
    return statistics.fmean(loss for _, loss in nearest) if nearest else None


def _plateau(val: Series) -> Finding | None:
    half = len(val) // 2
    if half < 3:
        return None
    before = min(loss for _, loss in val[: len(val) - half])
    since, best = val[len(val) - half - 1][0], min(loss for _, loss in val[-half:])
    if best < (1 - PLATEAU_REL) * before:
        return None
    return Finding(
        f"plateau since step {since}",
        f"the validation loss stays at {best:.3f}",
        "try a larger train.learning_rate or model (n_layer, n_embd), or fewer train.steps for the "
        "same result",
    )


def _unfinished(val: Series) -> Finding | None:
    if len(val) < 3 or val[-1][1] >= (1 - UNFINISHED_REL) * val[-2][1]:
        return None
    return Finding(
        "still falling",
        f"the validation loss last fell from {val[-2][1]:.3f} to {val[-1][1]:.3f}",
        "try more train.steps",
    )


def _clipped(clip_rates: Series) -> Finding | None:
    late = [rate for _, rate in clip_rates[len(clip_rates) // 2 :]]
    if not late or (mean := statistics.fmean(late)) < ALWAYS_CLIPPED:
        return None
    return Finding(
        "clipped at nearly every step",
        f"{mean:.0%} of the later gradients were clipped to train.grad_clip",
        "so that it, and not the loss, sets the length of an update: try half of "
        "train.learning_rate or twice train.grad_clip",
    )


def _dead(fractions: Series) -> Finding | None:
    if not fractions or fractions[-1][1] <= MANY_DEAD:
        return None
    return Finding(
        "many dead units",
        f"no token of an evaluation activates {fractions[-1][1]:.0%} of the MLPs' units",
        "they contribute nothing: try a smaller train.learning_rate or model.n_embd",
    )
