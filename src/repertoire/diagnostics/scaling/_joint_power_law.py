"""A loss as a function of parameters and data together, and how to divide a budget among them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from repertoire.diagnostics.scaling._power_law import Numbers, Prediction, _array
from repertoire.errors import ConfigError, DataError, ShapeError, UnknownName

__all__ = ["Allocation", "JointPowerLaw", "fit_joint_power_law"]

Form = Literal["kaplan", "sum"]


class Allocation(NamedTuple):
    """Best division of a budget of compute.

    Attributes:
        parameters: number of parameters N.
        data: number of samples or tokens D.
        loss: what the law predicts there.
    """

    parameters: float
    data: float
    loss: float


@dataclass(frozen=True, eq=False)
class JointPowerLaw:
    """A fitted law L(N, D).

    Attributes:
        form: "kaplan" or "sum".
        parameters: what was fitted, by name.
        sigma: standard deviation of the logarithm of the loss about the law.
        points: number of points it was fitted to.
    """

    form: Form
    parameters: dict[str, float]
    sigma: float
    points: int
    _logs: np.ndarray
    _covariance: np.ndarray

    def __call__(self, n: Numbers, d: Numbers) -> np.ndarray:
        """The law at n parameters and d samples."""
        return np.asarray(np.exp(_CURVES[self.form](self._logs, np.log(_array("n", n)), np.log(_array("d", d)))))

    def predict(self, n: Numbers, d: Numbers, interval: float = 0.95) -> Prediction:
        """The law, with an interval by the delta method: from its slope in each parameter at the fit.

        Such an interval is symmetric in the logarithm and too narrow where the fit is far from linear; that of
        :func:`repertoire.diagnostics.fit_power_law`, for one variable, is better.

        Raises:
            ConfigError: a confidence that is none. DataError: numbers that are not positive.
        """
        from scipy.special import stdtrit

        if not 0 < interval < 1:
            raise ConfigError(f"interval must be a confidence between 0 and 1, found {interval}")
        value = np.log(self(n, d))
        slopes = _slopes(_CURVES[self.form], self._logs, np.log(_array("n", n)), np.log(_array("d", d)))
        spread = np.sqrt(np.einsum("i...,ij,j...->...", slopes, self._covariance, slopes).clip(0))
        half = stdtrit(self.points - len(self._logs), (1 + interval) / 2) * spread
        return Prediction(np.exp(value), np.exp(value - half), np.exp(value + half))

    def allocate(self, compute: float, cost: float = 6.0) -> Allocation:
        """The best number of parameters and of samples for a budget: the least loss with `cost * N * D = compute`.

        Args:
            compute: operations, positive.
            cost: operations for a parameter and a sample; 6 for a forward and a backward pass of a dense network.

        Raises:
            ConfigError: a number that is not positive.
        """
        from scipy.optimize import minimize_scalar

        if not (0 < compute < math.inf and 0 < cost < math.inf):
            raise ConfigError(f"compute and cost must be positive, found {compute} and {cost}")
        total = math.log(compute / cost)
        curve = _CURVES[self.form]
        found = minimize_scalar(
            lambda n: float(curve(self._logs, n, total - n)),
            bounds=(min(0.0, total), max(0.0, total)),
            method="bounded",
        )
        return Allocation(math.exp(found.x), math.exp(total - found.x), math.exp(found.fun))


def fit_joint_power_law(n: Numbers, d: Numbers, loss: Numbers, *, form: Form = "kaplan") -> JointPowerLaw:
    r"""Fits a law of the loss in the number of parameters N and of samples D together.

    The form "kaplan" is that of Kaplan et al., *Scaling Laws for Neural Language Models* (2020), in which overfitting
    depends on a ratio of powers of N and D,

    .. math:: L(N, D) = \Big[ (N_c / N)^{\alpha_N / \alpha_D} + D_c / D \Big]^{\alpha_D}

    and "sum" that of Hoffmann et al., *Training Compute-Optimal Large Language Models* (2022), which has a floor:

    .. math:: L(N, D) = E + A\,N^{-\alpha} + B\,D^{-\beta}

    Fitted to the logarithm of the loss with the loss of Huber, from several starts.

    Args:
        n, d, loss: `[P]` each, positive; a grid, or any set of runs.
        form: "kaplan" (four parameters) or "sum" (five).

    Returns:
        The law, which predicts and allocates.

    Raises:
        DataError: numbers that are not positive and finite, fewer runs than parameters and one, or fewer than three
        different N or D. ShapeError: different lengths. UnknownName: no such form.

    Example:
        >>> import numpy as np
        >>> from repertoire.diagnostics import fit_joint_power_law
        >>> n, d = (part.ravel() for part in np.meshgrid([1e3, 1e4, 1e5], [1e4, 1e5, 1e6]))
        >>> law = fit_joint_power_law(n, d, 1.5 + 30 * n**-0.5 + 50 * d**-0.4, form="sum")
        >>> round(law.parameters["alpha"], 3), round(float(law([1e6], [1e7])[0]), 3)
        (0.5, 1.609)
    """
    from scipy.optimize import least_squares

    if form not in _CURVES:
        raise UnknownName("form", form, list(_CURVES))
    ns, ds, ys = (_array(name, v).ravel() for name, v in (("n", n), ("d", d), ("loss", loss)))
    if not len(ns) == len(ds) == len(ys):
        raise ShapeError(f"there are {len(ns)} n, {len(ds)} d and {len(ys)} losses")
    count = 4 if form == "kaplan" else 5
    if len(ys) <= count or len(np.unique(ns)) < 3 or len(np.unique(ds)) < 3:
        raise DataError(
            f"the form {form!r} has {count} parameters and needs at least {count + 1} runs with three different n and "
            f"d; found {len(ys)} runs with {len(np.unique(ns))} and {len(np.unique(ds))}"
        )
    logs = np.log(ns), np.log(ds), np.log(ys)
    curve = _CURVES[form]

    def off(p: np.ndarray) -> np.ndarray:
        return np.asarray(curve(p, logs[0], logs[1]) - logs[2])

    # Exponents from a thousandth to seven: beyond, the powers overflow.
    bounds = ([-7.0, -7.0, *[-np.inf] * (count - 2)], [2.0, 2.0, *[np.inf] * (count - 2)])
    fits = [
        least_squares(off, start, bounds=bounds, loss="huber", f_scale=0.02, x_scale="jac", max_nfev=300)
        for start in _starts(form, *logs)
    ]
    best = min(fits, key=lambda fit: float(fit.cost))
    residuals = off(best.x)
    sigma = math.sqrt(float(np.square(residuals).sum()) / (len(ys) - count))
    slopes = _slopes(curve, best.x, logs[0], logs[1])
    covariance = sigma**2 * np.linalg.pinv(slopes @ slopes.T)
    return JointPowerLaw(form, _named(form, best.x), sigma, len(ys), best.x, covariance)


def _kaplan(p: np.ndarray, n: np.ndarray, d: np.ndarray) -> np.ndarray:
    """p: logarithms of alpha_N, alpha_D, and alpha_N log N_c, alpha_D log D_c, which the data tell apart better."""
    alpha_n, alpha_d = np.exp(p[0]), np.exp(p[1])
    return np.asarray(alpha_d * np.logaddexp((p[2] - alpha_n * n) / alpha_d, (p[3] - alpha_d * d) / alpha_d))


def _sum(p: np.ndarray, n: np.ndarray, d: np.ndarray) -> np.ndarray:
    """p: logarithms of alpha, beta, A, B, E."""
    terms = np.logaddexp(p[2] - np.exp(p[0]) * n, p[3] - np.exp(p[1]) * d)
    return np.asarray(np.logaddexp(terms, p[4]))


_CURVES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {"kaplan": _kaplan, "sum": _sum}


def _starts(form: Form, n: np.ndarray, d: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Curves through the middle of the data, with low, middling and high exponents."""
    starts = []
    for first, second in itertools.product((0.1, 0.4, 1.0), repeat=2):
        level = [y.mean() + first * n.mean(), y.mean() + second * d.mean()]
        head = [math.log(first), math.log(second)]
        if form == "kaplan":
            starts.append(np.array([*head, *level]))
        else:
            starts += [np.array([*head, *(part - 1 for part in level), y.min() - below]) for below in (0.1, 1.0, 4.0)]
    return starts


def _slopes(
    curve: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray], p: np.ndarray, n: np.ndarray, d: np.ndarray
) -> np.ndarray:
    """Derivatives by each parameter, by central differences."""
    rows = []
    for place in range(len(p)):
        step = np.zeros(len(p))
        step[place] = 1e-5 * max(1.0, abs(p[place]))
        rows.append((curve(p + step, n, d) - curve(p - step, n, d)) / (2 * step[place]))
    return np.stack(rows)


def _named(form: Form, p: np.ndarray) -> dict[str, float]:
    first, second = (float(v) for v in np.exp(p[:2]))
    if form == "kaplan":
        with np.errstate(over="ignore"):
            n_c, d_c = float(np.exp(p[2] / first)), float(np.exp(p[3] / second))
        return {"alpha_n": first, "alpha_d": second, "n_c": n_c, "d_c": d_c}
    a, b, e = (float(v) for v in np.exp(p[2:]))
    return {"alpha": first, "beta": second, "a": a, "b": b, "e": e}
