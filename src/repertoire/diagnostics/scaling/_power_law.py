"""Power laws of error against data, parameters or compute, and how far they can be trusted beyond the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from repertoire.errors import ConfigError, DataError, ShapeError

__all__ = ["PowerLaw", "Prediction", "fit_power_law"]

Numbers = Sequence[float] | np.ndarray | Tensor

#: Exponents that are considered, and ratios of the floor to the rest at the geometric mean of the data.
_EXPONENTS = np.geomspace(1e-3, 8.0, 160)
_RATIOS = np.geomspace(1e-6, 1e4, 161)


class Prediction(NamedTuple):
    """A prediction and its interval, each float64 of the shape of what was asked for."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """A fitted law y = scale * x ** -exponent + floor.

    Attributes:
        scale, exponent, floor: the parameters.
        exponent_interval, floor_interval: with 95 % confidence.
        sigma: standard deviation of the logarithm of y about the law: 0.05 is an error of some 5 per cent.
        points: number of points it was fitted to.
    """

    scale: float
    exponent: float
    floor: float
    exponent_interval: tuple[float, float]
    floor_interval: tuple[float, float]
    sigma: float
    points: int
    _profile: _Profile

    def __call__(self, x: Numbers) -> np.ndarray:
        """The law at x."""
        return np.asarray(self.scale * _array("x", x) ** -self.exponent + self.floor)

    def predict(self, x: Numbers, interval: float = 0.95, *, observation: bool = False) -> Prediction:
        """The law at x, with an interval.

        Args:
            x: positive numbers, inside the data or beyond.
            interval: confidence, between 0 and 1.
            observation: an interval for a new measurement, which has noise of its own, instead of one for the law.

        Raises:
            ConfigError: a confidence that is none. DataError: an x that is not positive.
        """
        if not 0 < interval < 1:
            raise ConfigError(f"interval must be a confidence between 0 and 1, found {interval}")
        at = _array("x", x)
        flat = at.ravel()
        low, high = self._profile.bounds(
            lambda b, k: np.logaddexp(_rest(flat, b, self._profile.centre), _log(k)[:, None]), interval
        )
        value = np.log(self(flat))
        if observation:
            noise = self._profile.quantile(interval) * self.sigma
            low, high = value - np.hypot(value - low, noise), value + np.hypot(high - value, noise)
        return Prediction(*(np.asarray(np.exp(part)).reshape(at.shape) for part in (value, low, high)))

    def needed(self, y: float) -> float:
        """The x at which the law reaches y; infinite where its floor is not below.

        >>> round(fit_power_law([1, 2, 4, 8, 16], [1, 0.5, 0.25, 0.125, 0.0625], floor=False).needed(0.01), 6)
        100.0
        """
        if not y > 0:
            raise DataError(f"y must be positive, found {y}")
        if y <= self.floor:
            return math.inf
        return float((self.scale / (y - self.floor)) ** (1 / self.exponent))


def fit_power_law(x: Numbers, y: Numbers, *, floor: bool = True) -> PowerLaw:
    r"""Fits a power law that may level off, and says how far it can be trusted.

    .. math:: y = a\,x^{-b} + c, \qquad a > 0,\ b > 0,\ c \ge 0

    the form in which Kaplan et al., *Scaling Laws for Neural Language Models* (2020), and Su et al., *Unraveling the
    Mystery of Scaling Laws: Part I* (2024), extrapolate a loss from small runs. It is fitted to the logarithm of y, so
    that each point counts by its relative error. With six points or more, points far off the law count less (weights of
    Huber, with the scale of a fit of least absolute deviations).

    Intervals are profile intervals: of all laws whose sum of squares stays below
    :math:`S_{\min} \big(1 + t^2 / (n - p)\big)`, with Student's t of n - p degrees of freedom, the lowest and the
    highest value. They are not symmetric, they widen quickly beyond the data where the floor is open, and they hold if
    the law does: no interval knows of a law that changes. Nothing is random.

    Args:
        x: what grows: samples, parameters, compute. Positive.
        y: an error or a loss that falls. Positive.
        floor: whether c may be above 0.

    Returns:
        The law, which predicts.

    Raises:
        DataError: numbers that are not positive and finite; y that does not fall with x; or no more different x than
        parameters (three, or two without a floor): such a law would fit anything, and have no interval.
        ShapeError: x and y of different lengths.

    Example:
        >>> from repertoire.diagnostics import fit_power_law
        >>> law = fit_power_law([100, 200, 400, 800, 1600], [0.4, 0.3, 0.235, 0.19, 0.155])
        >>> round(law.exponent, 2)
        0.52
        >>> found = law.predict([6400])
        >>> bool(found.low[0] < found.value[0] < found.high[0])
        True
    """
    xs, ys = _array("x", x).ravel(), _array("y", y).ravel()
    if len(xs) != len(ys):
        raise ShapeError(f"there are {len(xs)} x and {len(ys)} y")
    parameters = 3 if floor else 2
    different = len(np.unique(xs))
    if different <= parameters:
        raise DataError(
            f"a power law {'with a floor has three' if floor else 'without a floor has two'} parameters and needs at "
            f"least {parameters + 1} different x, found {different}"
            + ("; measure more sizes, or give floor=False" if floor else "; measure more sizes")
        )
    if np.ptp(ys) == 0 or np.corrcoef(np.log(xs), np.log(ys))[0, 1] >= 0:
        raise DataError("y does not fall as x grows, so there is no power law to extrapolate")
    profile = _Profile(xs, ys, floor)
    b, k = profile.best
    log_a = profile.level(np.array([b]), np.array([k]))[0]
    exponents = profile.bounds(lambda b, k: np.log(b)[:, None], 0.95, level=False)
    floors = profile.bounds(lambda b, k: _log(k)[:, None], 0.95)
    return PowerLaw(
        scale=float(math.exp(log_a + b * profile.centre)),
        exponent=float(b),
        floor=float(math.exp(log_a) * k),
        exponent_interval=(float(np.exp(exponents[0][0])), float(np.exp(exponents[1][0]))),
        floor_interval=(float(np.exp(floors[0][0])), float(np.exp(floors[1][0]))),
        sigma=profile.sigma,
        points=len(xs),
        _profile=profile,
    )


class _Profile:
    """Sums of squares of log y = level + log(u ** -b + k), with u = x over its geometric mean.

    The level is known in closed form, which leaves two parameters, exponent and ratio; for each ratio the best exponent
    is found by a search on a line.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, floor: bool) -> None:
        self.centre = float(np.log(x).mean())
        self.x, self.target = x, np.log(y)
        self.freedom = len(x) - (3 if floor else 2)
        self.ratios = np.concatenate([[0.0], _RATIOS]) if floor else np.zeros(1)
        self.weights = np.ones(len(x))
        self.grid = self.target - self.curve(*np.meshgrid(_EXPONENTS, self.ratios, indexing="ij"))
        if self.freedom >= 3:
            self._downweigh()
        self.best = self._minimum()
        self.least = float(self.squares(*(np.array([v]) for v in self.best))[0])
        self.sigma = math.sqrt(self.least / self.freedom)
        self._regions: dict[float, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def curve(self, b: np.ndarray, k: np.ndarray) -> np.ndarray:
        """log(u ** -b + k) at the data, `[..., n]`."""
        return np.logaddexp(_rest(self.x, b, self.centre), _log(k)[..., None])

    def level(self, b: np.ndarray, k: np.ndarray) -> np.ndarray:
        """The best level for each exponent and ratio."""
        return (self.target - self.curve(b, k)) @ self.weights / self.weights.sum()

    def squares(self, b: np.ndarray, k: np.ndarray) -> np.ndarray:
        """The weighted sum of squares for each exponent and ratio."""
        off = self.target - self.curve(b, k)
        off = off - (off @ self.weights / self.weights.sum())[..., None]
        return np.square(off) @ self.weights

    def quantile(self, confidence: float) -> float:
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, (1 + confidence) / 2))

    def bounds(
        self, function: Callable[[np.ndarray, np.ndarray], np.ndarray], confidence: float, *, level: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """The smallest and largest value of a function of exponents and ratios over the region of a confidence.

        Args:
            function: of `[m]` exponents and ratios to `[m, ...]`.
            level: whether the level is to be added to it, within its own slack.
        """
        if confidence not in self._regions:
            self._regions[confidence] = self._region(confidence)
        b, k, slack = self._regions[confidence]
        values = function(b, k)
        extra = np.zeros(len(b))
        if level:
            values = values + self.level(b, k).reshape(-1, *[1] * (values.ndim - 1))
            extra = np.sqrt(slack / self.weights.sum())
        extra = extra.reshape(-1, *[1] * (values.ndim - 1))
        return (values - extra).min(0), (values + extra).max(0)

    def _region(self, confidence: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Exponents and ratios of laws that the data do not exclude, and how far each is from the limit."""
        limit = self.least * (1 + self.quantile(confidence) ** 2 / self.freedom) + 1e-18
        ratios = self._ratios_within(limit)
        middle = self._exponents(ratios)
        low = self._edge(ratios, middle, _EXPONENTS[0], limit)
        high = self._edge(ratios, middle, _EXPONENTS[-1], limit)
        share = np.concatenate([np.linspace(0, 1, 17), [0.0]])[:, None]
        b = np.concatenate([low + (middle - low) * share, middle + (high - middle) * share]).ravel()
        k = np.tile(ratios, 2 * len(share))
        slack = limit - self.squares(b, k)
        inside = slack >= -1e-12 * limit
        return (
            np.append(b[inside], self.best[0]),
            np.append(k[inside], self.best[1]),
            np.append(slack[inside].clip(0), limit - self.least),
        )

    def _ratios_within(self, limit: float) -> np.ndarray:
        """Ratios from the least to the largest whose best law is within the limit."""
        if len(self.ratios) == 1:
            return self.ratios
        ends = []
        for end in (_RATIOS[0], _RATIOS[-1]):
            inner, outer = math.log(max(self.best[1], _RATIOS[0])), math.log(end)
            for _ in range(7):  # each time to a sixteenth
                steps = np.linspace(inner, outer, 17)
                within = int((self._squares_at(np.exp(steps[1:])) <= limit).cumprod().sum())
                inner, outer = steps[within], steps[min(within + 1, 16)]
            ends.append(inner)
        ratios = np.exp(np.linspace(ends[0], ends[1], 65))
        zero = self._squares_at(np.zeros(1))[0] <= limit
        return np.concatenate([[0.0], ratios]) if zero else ratios

    def _edge(self, k: np.ndarray, inner: np.ndarray, end: float, limit: float) -> np.ndarray:
        """For each ratio, how far the exponent can go towards an end before the limit is passed."""
        inner, outer = inner.copy(), np.full_like(inner, end)
        free = self.squares(outer, k) <= limit
        for _ in range(40):
            middle = np.sqrt(inner * outer)
            within = self.squares(middle, k) <= limit
            inner, outer = np.where(within, middle, inner), np.where(within, outer, middle)
        return np.where(free, end, inner)

    def _exponents(self, k: np.ndarray, grid: np.ndarray | None = None) -> np.ndarray:
        """The best exponent for each ratio: the best of a grid, and golden sections between its neighbours."""
        if grid is None:
            grid = self.squares(*np.meshgrid(_EXPONENTS, k, indexing="ij"))
        place = grid.argmin(0)
        low, high = (np.log(_EXPONENTS[np.clip(place + step, 0, len(_EXPONENTS) - 1)]) for step in (-1, 1))
        golden = (math.sqrt(5) - 1) / 2
        for _ in range(36):
            left, right = high - golden * (high - low), low + golden * (high - low)
            lower = self.squares(np.exp(left), k) <= self.squares(np.exp(right), k)
            low, high = np.where(lower, low, left), np.where(lower, right, high)
        return np.exp((low + high) / 2)

    def _squares_at(self, k: np.ndarray) -> np.ndarray:
        return self.squares(self._exponents(k), k)

    def _minimum(self) -> tuple[float, float]:
        off = self.grid - (self.grid @ self.weights / self.weights.sum())[..., None]
        exponents = self._exponents(self.ratios, np.square(off) @ self.weights)
        place = int(self.squares(exponents, self.ratios).argmin())
        ratios = self.ratios[max(place - 1, 0) : place + 2]
        if self.ratios[place] > 0:
            for _ in range(5):  # each time to an eighth
                ratios = np.geomspace(max(ratios[0], _RATIOS[0]), ratios[-1], 17)
                place = int(self._squares_at(ratios).argmin())
                ratios = ratios[max(place - 1, 0) : place + 2]
        # Without a floor, where that is no worse.
        ratios = np.concatenate([self.ratios[:1], ratios])
        best = float(ratios[int(self._squares_at(ratios).argmin())])
        return float(self._exponents(np.array([best]))[0]), best

    def _downweigh(self) -> None:
        """Weights of Huber for points that are far off, from a fit of least absolute deviations."""
        off = self.grid.reshape(-1, len(self.x))
        off = off - np.median(off, 1, keepdims=True)
        sizes = np.abs(off[np.abs(off).sum(1).argmin()])
        # A fit of least absolute deviations goes through as many points as it has parameters; they say nothing.
        scale = 1.4826 * float(np.median(np.sort(sizes)[len(sizes) - self.freedom :]))
        if scale < 1e-9:
            return
        for _ in range(20):
            before = self.weights
            b_, k_ = (np.array([v]) for v in self._minimum())
            off = self.target - self.curve(b_, k_)[0] - self.level(b_, k_)[0]
            self.weights = np.minimum(1.0, 1.345 * scale / np.abs(off).clip(1e-30))
            if np.allclose(before, self.weights, atol=1e-3):
                break


def _rest(x: np.ndarray, b: np.ndarray, centre: float) -> np.ndarray:
    """log(u ** -b), for each exponent at each x."""
    return np.asarray(-np.multiply.outer(b, np.log(x) - centre))


def _log(k: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(k)


def _array(name: str, values: Numbers) -> np.ndarray:
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    bad = ~(np.isfinite(array) & (array > 0))
    if bad.any():
        place = tuple(int(i[0]) for i in bad.nonzero())
        raise DataError(f"{name} must be positive and finite, found {array[bad][0]} at place {list(place)}")
    return array
