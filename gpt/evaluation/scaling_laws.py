"""Scaling laws: how the loss falls as a model, its data or its compute grows, and what comes next.

    loss(x) = floor + a * x^-b

(Kaplan et al. 2020; with a floor, Hoffmann et al. 2022) for x in parameters, tokens or FLOPs. No
model gets below the floor. It is fitted, or given where it is known, as for `verse`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from gpt.errors import DataError


@dataclass(frozen=True)
class PowerLaw:
    """floor + a * x^-b, and how well the points determine it."""

    floor: float
    a: float
    b: float
    points: int
    variance: float  # of a point about the curve
    covariance: NDArray[np.float64]  # of the fitted parameters (log a, b, [floor])

    def at(self, x: float) -> float:
        """The expected loss."""
        return float(self.floor + self.a * x**-self.b)

    def interval(self, x: float) -> tuple[float, float]:
        """The 95 % prediction interval of a run at `x`, if the law holds there."""
        free = len(self.covariance)
        term = self.a * x**-self.b
        gradient = np.array([term, -term * np.log(x), 1.0])[:free]
        std = np.sqrt(gradient @ self.covariance @ gradient + self.variance)
        margin = float(stats.t.ppf(0.975, self.points - free) * std)
        return self.at(x) - margin, self.at(x) + margin


def fit_power_law(
    x: Sequence[float], loss: Sequence[float], floor: float | None = None
) -> PowerLaw:
    """The least-squares law through the points (x, loss); `floor` where it is known.

    Raises DataError for fewer than three different x, or four where the floor is fitted.
    """
    xs, losses = np.asarray(x, dtype=np.float64), np.asarray(loss, dtype=np.float64)
    free, sizes = 2 if floor is not None else 3, len(set(x))
    if sizes < free + 1:
        raise DataError(
            f"{sizes} sizes: too few to fit {free} parameters; add runs of {free + 1} sizes or more"
        )
    lowest = float(losses.min())
    if floor is not None and floor >= lowest:
        raise DataError(f"floor {floor}: lies above the loss {lowest:.4f}; use --no-floor")
    # Centering log x makes a and b nearly independent, which the optimizer needs.
    center = float(np.log(xs).mean())
    logs = np.log(xs) - center

    def residuals(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        base = parameters[2] if floor is None else floor
        return np.asarray(base + np.exp(parameters[0] - parameters[1] * logs) - losses)

    first_floor = lowest * 0.8 if floor is None else floor
    start = [float(np.log(np.mean(losses) - first_floor)), 0.3, first_floor][:free]
    low, high = [-np.inf, 0.0, 0.0][:free], [np.inf, np.inf, lowest][:free]
    result = optimize.least_squares(residuals, start, bounds=(low, high), x_scale="jac")
    b = float(result.x[1])
    variance = float((result.fun**2).sum() / (len(xs) - free))
    # Undo the centering: log a = (log a)' + b * center.
    uncenter = np.eye(free)
    uncenter[0, 1] = center
    covariance = uncenter @ (variance * np.linalg.pinv(result.jac.T @ result.jac)) @ uncenter.T
    return PowerLaw(
        floor=float(result.x[2]) if floor is None else floor,
        a=float(np.exp(result.x[0] + b * center)),
        b=b,
        points=len(xs),
        variance=variance,
        covariance=covariance,
    )
