"""Scaling laws: how the loss falls as a model, its text or its compute grows, and what comes next.

    loss(x) = floor + a * x^-b

(Kaplan et al. 2020; with a floor Hoffmann et al. 2022) for x in parameters, tokens or operations.
The floor is what no model gets below: fitted where there are points enough, or given where it is
known, as it is of `verse`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from gpt.errors import DataError

LEVEL = 0.05


@dataclass(frozen=True)
class PowerLaw:
    """floor + a * x^-b, and how sure the points make one of it."""

    floor: float
    a: float
    b: float
    points: int
    # Variance of a point about the line, and covariance of the fitted numbers (log a, b, [floor]).
    variance: float
    covariance: NDArray[np.float64]

    def at(self, x: float) -> float:
        """The expected loss."""
        return float(self.floor + self.a * x**-self.b)

    def interval(self, x: float) -> tuple[float, float]:
        """Where a run at `x` lies in 19 of 20 cases, if the law goes on to hold there."""
        free = len(self.covariance)
        term = self.a * x**-self.b
        slope = np.array([term, -term * np.log(x), 1.0])[:free]
        spread = np.sqrt(slope @ self.covariance @ slope + self.variance)
        reach = float(stats.t.ppf(1 - LEVEL / 2, self.points - free) * spread)
        return self.at(x) - reach, self.at(x) + reach


def fit(x: Sequence[float], loss: Sequence[float], floor: float | None = None) -> PowerLaw:
    """The law through points (x, loss), by least squares; `floor` where it is known.

    Raises DataError for fewer than three different x (four where the floor is to be found).
    """
    xs, losses = np.asarray(x, dtype=np.float64), np.asarray(loss, dtype=np.float64)
    free = 2 if floor is not None else 3
    if len(set(xs.tolist())) < free + 1:
        raise DataError(
            f"{len(set(xs.tolist()))} sizes; a law of {free} unknowns takes {free + 1} or more"
        )
    # A power of x is a line in log x; in the middle of the points, so that a and b do not trade.
    middle = float(np.log(xs).mean())
    logs = np.log(xs) - middle
    lowest = float(losses.min())
    if floor is not None and floor >= lowest:
        raise DataError(f"a floor of {floor} lies above the loss {lowest:.4f}")

    def apart(unknown: NDArray[np.float64]) -> NDArray[np.float64]:
        base = unknown[2] if floor is None else floor
        missed: NDArray[np.float64] = base + np.exp(unknown[0] - unknown[1] * logs) - losses
        return missed

    guess = lowest * 0.8 if floor is None else floor
    begin = [float(np.log(np.mean(losses) - guess)), 0.3, guess][:free]
    low, high = [-np.inf, 0.0, 0.0][:free], [np.inf, np.inf, lowest][:free]
    found = optimize.least_squares(apart, begin, bounds=(low, high), x_scale="jac")
    b = float(found.x[1])
    variance = float((found.fun**2).sum() / (len(xs) - free))
    # Back from the middle: log a = (log a)' + b * middle.
    back = np.eye(free)
    back[0, 1] = middle
    covariance = back @ (variance * np.linalg.pinv(found.jac.T @ found.jac)) @ back.T
    return PowerLaw(
        floor=float(found.x[2]) if floor is None else floor,
        a=float(np.exp(found.x[0] + b * middle)),
        b=b,
        points=len(xs),
        variance=variance,
        covariance=covariance,
    )
