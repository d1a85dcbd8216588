"""Black boxes with a known answer, and simple interpreters of them: interpretation that can be graded."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from repertoire.errors import ConfigError

__all__ = [
    "BlackBox",
    "Fit",
    "FunctionTask",
    "InterpretationScore",
    "Queries",
    "function_tasks",
    "interpret",
    "score_interpretation",
]

Function = Callable[[Tensor], Tensor]
Fit = Literal["piecewise", "spline", "polynomial"]
Queries = Literal["passive", "adaptive"]
DOMAIN = (-10.0, 10.0)


@dataclass(frozen=True)
class FunctionTask:
    """A function of one number with a known answer, to grade interpreters that only see what it returns.

    Schwettmann et al., *A Function Interpretation Benchmark for Evaluating Interpretability Methods* (FIND, 2023), its
    numeric functions; see :func:`~repertoire.explain.function_tasks`, which makes them.

    Attributes:
        description: what the function is, in words.
        clean: the function without corruption, float64 `[n]` to `[n]`.
        corrupted: the interval in which it is replaced; None if it is not.
        level: the value in that interval.
        noise: standard deviation of what is added to each observation.
    """

    description: str
    clean: Function = field(repr=False)
    corrupted: tuple[float, float] | None = None
    level: float = 0.0
    noise: float = 0.0

    def inside(self, x: Tensor) -> Tensor:
        """Marks the points in the corrupted interval, bool `[n]`."""
        if self.corrupted is None:
            return torch.zeros_like(x, dtype=torch.bool)
        return (x > self.corrupted[0]) & (x < self.corrupted[1])

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluates the true function, without noise; float64 `[n]` to `[n]`."""
        return torch.where(self.inside(x), self.level, self.clean(x))


def function_tasks(
    count: int, seed: int = 0, *, noise: float = 0.0, corrupted: bool = True, composed: float = 0.15
) -> list[FunctionTask]:
    """Numeric functions on [-10, 10] to interpret, each scaled to a standard deviation of one.

    Schwettmann et al., *A Function Interpretation Benchmark for Evaluating Interpretability Methods* (FIND, 2023). An
    atom (linear, polynomial, absolute, sine, sigmoid, bump, ReLU, step, square wave) or a composition, sum or product
    of two; in an interval of 5 to 15 % of the domain it is replaced by a constant (in the released functions by draws
    of a standard deviation of 0.1 about one, which `noise=0.1` comes near to). Functions approximated by a network,
    functions on text and language models as interpreters are left out.

    Args:
        count: how many.
        seed: of all that is drawn; the same functions every time.
        noise: standard deviation of the noise on observations.
        corrupted: whether each function is corrupted in an interval.
        composed: share of functions that are made of two atoms, in [0, 1].

    Raises:
        ConfigError: an argument out of range.

    Example:
        >>> from repertoire.explain import function_tasks
        >>> len(function_tasks(3, seed=0))
        3
    """
    if count < 0 or not 0 <= composed <= 1 or not 0 <= noise < math.inf:
        raise ConfigError(
            f"count and noise must be at least 0 and composed in [0, 1], found {count}, {noise} and {composed}"
        )
    random = np.random.default_rng(seed)
    return [_task(random, noise, corrupted, composed) for _ in range(count)]


class BlackBox:
    """A task seen from outside: noisy answers, and no more than a budget of them.

    Args:
        task: what answers.
        budget: how many points may be asked for.
        seed: of the noise.

    Attributes:
        asked: how many points have been asked for.

    Raises:
        ConfigError: when called, if the budget would be exceeded.

    Example:
        >>> import torch
        >>> from repertoire.explain import BlackBox, function_tasks
        >>> box = BlackBox(function_tasks(1)[0], budget=8)
        >>> box(torch.linspace(-10, 10, 8)).shape, box.asked
        (torch.Size([8]), 8)
    """

    def __init__(self, task: FunctionTask, budget: int, seed: int = 0) -> None:
        self._task, self.budget, self.asked = task, budget, 0
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, x: Tensor) -> Tensor:
        """Observations at points `[n]`, float64 `[n]`."""
        if self.asked + len(x) > self.budget:
            raise ConfigError(f"{len(x)} more queries exceed the budget of {self.budget}, {self.asked} are used")
        self.asked += len(x)
        x = x.double()
        noise = torch.randn(len(x), generator=self._generator, dtype=torch.float64)
        return self._task(x) + self._task.noise * noise


def interpret(box: BlackBox, fit: Fit = "piecewise", queries: Queries = "passive") -> Function:
    """Interprets a black box simply, with all of its budget.

    Args:
        box: what is asked; its budget at least 8.
        fit: "piecewise" (straight lines between observations), "spline" (a smoothing cubic spline, its smoothness by
            generalised cross-validation) or "polynomial" (least squares, the degree up to 15 by the same).
        queries: "passive" asks at evenly spaced points; "adaptive" spends half like that, and then halves, a few at a
            time, the intervals over which the graph is longest, where it is steep or jumps.

    Returns:
        A function float64 `[n]` to `[n]` on [-10, 10].

    Raises:
        ConfigError: an unknown fit or way to ask, or too small a budget.

    Example:
        >>> from repertoire.explain import BlackBox, function_tasks, interpret, score_interpretation
        >>> task = function_tasks(1, corrupted=False)[0]
        >>> score_interpretation(task, interpret(BlackBox(task, 64), "spline")).success
        True
    """
    if fit not in ("piecewise", "spline", "polynomial"):
        raise ConfigError(f"fit must be piecewise, spline or polynomial, found {fit!r}")
    if queries not in ("passive", "adaptive"):
        raise ConfigError(f"queries must be passive or adaptive, found {queries!r}")
    left = box.budget - box.asked
    if left < 8:
        raise ConfigError(f"an interpreter needs a budget of at least 8, found {left}")
    x = np.linspace(*DOMAIN, left if queries == "passive" else left // 2)
    y = box(torch.from_numpy(x)).numpy()
    while box.asked < box.budget:
        length = np.hypot(np.diff(x) / (DOMAIN[1] - DOMAIN[0]), np.diff(y) / max(np.ptp(y), 1e-12))
        length[np.diff(x) < 2e-3] = 0  # a jump that is pinned down asks no more questions
        longest = np.argsort(-length, kind="stable")[: min(4, box.budget - box.asked)]
        between = (x[longest] + x[longest + 1]) / 2
        x, y = np.append(x, between), np.append(y, box(torch.from_numpy(between)).numpy())
        order = np.argsort(x)
        x, y = x[order], y[order]
    made = {"piecewise": _piecewise, "spline": _spline, "polynomial": _polynomial}[fit](x, y)
    return lambda points: torch.from_numpy(np.asarray(made(points.double().numpy()), dtype=np.float64))


class InterpretationScore(NamedTuple):
    """Errors of an interpretation: mean squared errors over the mean square of the function.

    Attributes:
        everywhere: on the whole domain.
        outside: where the function is not corrupted.
        inside: in the corrupted interval; NaN if there is none.
        success: whether the first is below 0.1, as FIND counts it.
    """

    everywhere: float
    outside: float
    inside: float
    success: bool


def score_interpretation(task: FunctionTask, interpretation: Function, points: int = 2000) -> InterpretationScore:
    """Grades an interpretation on the whole domain, where the function is corrupted, and where it is not.

    Args:
        task: the truth.
        interpretation: float64 `[n]` to `[n]`.
        points: at how many points each region is looked at, at least 2.

    Raises:
        ConfigError: too few points.

    Example:
        >>> from repertoire.explain import function_tasks, score_interpretation
        >>> task = function_tasks(1)[0]
        >>> round(score_interpretation(task, task).everywhere, 3)
        0.0
    """
    if points < 2:
        raise ConfigError(f"points must be at least 2, found {points}")
    grid = _grid(*DOMAIN, points)
    truth = task(grid)
    scale = float((truth**2).mean())
    errors = (interpretation(grid) - truth) ** 2 / scale
    inside = math.nan
    if task.corrupted is not None:
        near = _grid(*task.corrupted, points)
        inside = float(((interpretation(near) - task(near)) ** 2).mean()) / scale
    everywhere = float(errors.mean())
    return InterpretationScore(everywhere, float(errors[~task.inside(grid)].mean()), inside, everywhere < 0.1)


def _grid(low: float, high: float, points: int) -> Tensor:
    """The middles of equal cells."""
    return low + (high - low) * (torch.arange(points, dtype=torch.float64) + 0.5) / points


def _task(random: np.random.Generator, noise: float, corrupted: bool, composed: float) -> FunctionTask:
    name, raw = _atom(random)
    if random.random() < composed:
        name, raw = _pair(random, (name, raw), _atom(random))
    values = raw(_grid(*DOMAIN, 2000))
    shift, scale = float(values.mean()), max(float(values.std()), 1e-9)
    offset = float(random.normal())

    def clean(x: Tensor) -> Tensor:
        return (raw(x) - shift) / scale + offset

    if not corrupted:
        return FunctionTask(name, clean, noise=noise)
    width = (DOMAIN[1] - DOMAIN[0]) * random.uniform(0.05, 0.15)
    start = random.uniform(DOMAIN[0], DOMAIN[1] - width)
    level = offset + float(random.normal())
    name = f"{name}; {level:.2f} from {start:.2f} to {start + width:.2f}"
    return FunctionTask(name, clean, (start, start + width), level, noise)


def _atom(random: np.random.Generator) -> tuple[str, Function]:
    a, b, c = (float(value) for value in random.uniform((0.5, -5, -1), (2, 5, 1)))
    kinds: list[tuple[str, Function]] = [
        ("linear", lambda x: a * x + b),
        ("polynomial", lambda x: a * (x / 5) ** 3 + c * (x / 5) ** 2 + b / 5 * x),
        ("absolute", lambda x: a * (x - b).abs()),
        ("sine", lambda x: (a * x + b).sin()),
        ("sigmoid", lambda x: (a * (x - b)).sigmoid()),
        ("bump", lambda x: (-0.5 * ((x - b) / (1 + a)) ** 2).exp()),
        ("relu", lambda x: (x - b).relu() + 0.2 * c * x),
        ("step", lambda x: (x > b).double() + 0.1 * c * x),
        ("square wave", lambda x: (a / 2 * x + b).sin().sign()),
    ]
    return kinds[int(random.integers(len(kinds)))]


def _pair(random: np.random.Generator, one: tuple[str, Function], other: tuple[str, Function]) -> tuple[str, Function]:
    (first, f), (second, g) = one, other
    inner = g(_grid(*DOMAIN, 200))
    largest = max(float(inner.abs().max()), 1e-9)  # a composition stays where the outer function was made for
    kinds: list[tuple[str, Function]] = [
        (f"{first} of {second}", lambda x: f(DOMAIN[1] * g(x) / largest)),
        (f"{first} plus {second}", lambda x: f(x) + g(x)),
        (f"{first} times {second}", lambda x: f(x) * g(x)),
    ]
    return kinds[int(random.integers(len(kinds)))]


def _piecewise(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda points: np.interp(points, x, y)


def _spline(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    from scipy.interpolate import make_smoothing_spline

    return make_smoothing_spline(x, y)


def _polynomial(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    from numpy.polynomial import Chebyshev

    def left(degree: int) -> float:
        """Generalised cross-validation: the mean squared residual, dearer the more is fitted."""
        rest = y - Chebyshev.fit(x, y, degree, domain=list(DOMAIN))(x)
        return float((rest**2).mean() / (1 - (degree + 1) / len(x)) ** 2)

    best = min(range(1, min(16, len(x) - 1)), key=left)
    return Chebyshev.fit(x, y, best, domain=list(DOMAIN))
