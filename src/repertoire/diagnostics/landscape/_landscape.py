"""The loss along a line or over a plane of weights."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from repertoire.diagnostics._objective import Batches, Loss, Objective, finite_loss
from repertoire.diagnostics.landscape._directions import Direction, check_directions, random_directions
from repertoire.errors import ConfigError, UnknownName
from repertoire.ops import at_once, evaluating

__all__ = ["Landscape", "loss_landscape"]

#: Images that pass through a network together on a CPU, where more of them no longer fit into its caches.
_PIECE = 32

Point = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Landscape:
    """Losses along a line or over a plane of weights.

    Attributes:
        x: float64 `[n]`, steps along the first direction.
        y: float64 `[m]`, steps along the second; None for a line.
        loss: float64 `[n]` for a line and `[m, n]` for a plane; infinite or nan where the loss is.
        centre: the loss at the weights themselves.
    """

    x: Tensor
    y: Tensor | None
    loss: Tensor
    centre: float

    @property
    def rise(self) -> float:
        """Mean loss over the points above that of the centre: a measure of sharpness."""
        return float(self.loss.mean()) - self.centre


def loss_landscape(
    model: nn.Module,
    batches: Batches,
    directions: Sequence[Direction] | None = None,
    loss: Loss | None = None,
    *,
    x: int | Sequence[float] | Tensor = 25,
    y: int | Sequence[float] | Tensor | None = None,
    span: float = 1.0,
    batchnorm: Literal["keep", "batch"] = "keep",
    together: int = 1,
    workers: int | None = None,
    seed: int = 0,
) -> Landscape:
    r"""The mean loss along a line, or over a plane, through the weights.

    Li, Xu, Taylor, Studer and Goldstein, *Visualizing the Loss Landscape of Neural Nets* (2018):

    .. math:: f(a, b) = L(\theta + a\,\delta + b\,\eta)

    with directions of :func:`repertoire.diagnostics.random_directions`, whose filters are as long as those of the
    weights, or of :func:`repertoire.diagnostics.trajectory_directions`.

    The batches are gone through once: each is evaluated at all points before the next is read. It is done on a copy of
    the model, in evaluation mode and without a graph, whose weights are overwritten in place; the model itself is
    never touched. On a CPU the points are shared out among threads, which wait for each other less than threads that
    share out one convolution.

    Args:
        model: any module; its parameters that need a gradient move.
        batches: pairs of inputs and targets, or batches of `repertoire.data`. A few hundred samples make a smooth
            picture.
        directions: one for a line, two for a plane; two that are random if None.
        loss: of outputs and targets, the mean over a batch; cross-entropy by default, for batches of `repertoire.data`
            the method's own.
        x, y: how many steps there are from -span to span, or the steps themselves. y is by default as x; not looked at
            for a line.
        span: how far to go; at 1, random directions are as long as the weights.
        batchnorm: "keep" the running statistics of batch normalisation, as the released code does, though they are
            those of the weights in the centre; or "batch", each batch by its own at the weights of each point.
        together: points in one pass, through `torch.vmap`. More than one pays for small networks without convolutions;
            memory grows with it.
        workers: threads among which points are shared out; on a CPU as many as torch uses, elsewhere 1.
        seed: of the random directions.

    Returns:
        Steps, losses, and the loss in the centre.

    Raises:
        NonFiniteLoss: the loss in the centre is not finite. ConfigError: an option out of range, or no parameter needs
        a gradient. ShapeError, UnknownName, DataError: a direction that does not fit the model, or no batches.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import loss_landscape
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> batches = [(torch.ones(4, 1), torch.ones(4, 1))]
        >>> line = [{"weight": torch.ones(1, 1)}]
        >>> loss_landscape(model, batches, line, torch.nn.functional.mse_loss, x=5).loss
        tensor([1.0000, 0.2500, 0.0000, 0.2500, 1.0000], dtype=torch.float64)
    """
    if batchnorm not in ("keep", "batch"):
        raise UnknownName("option of batchnorm", batchnorm, ["keep", "batch"])
    if together < 1 or (workers is not None and workers < 1):
        raise ConfigError(f"together and workers must be at least 1, found {together} and {workers}")
    if together > 1 and batchnorm == "batch":
        raise ConfigError("batchnorm='batch' takes one point at a time; leave together at 1")
    if not 0 < span < math.inf:
        raise ConfigError(f"span must be a positive number, found {span}")
    objective = Objective(model, batches, loss)
    directions = random_directions(model, 2, seed=seed) if directions is None else directions
    ways = check_directions(model, directions)
    across = _steps("x", x, span)
    down = _steps("y", x if y is None else y, span) if len(ways) == 2 else None
    points: list[Point] = [(a,) for a in across]
    if down is not None:
        points = [(a, b) for b, a in itertools.product(down, across)]
    origin = (0.0,) * len(ways)
    at = list(dict.fromkeys([origin, *points]))  # the centre first, so that a broken model is found at once
    if together > 1:
        totals, samples = _vmapped(objective, ways, at, together)
    else:
        device = next(iter(objective.weights.values())).device
        threads = workers or (torch.get_num_threads() if device.type == "cpu" else 1)
        totals, samples = _threaded(objective, ways, at, min(threads, len(at)), batchnorm)
    mean = {point: total / samples for point, total in zip(at, totals, strict=True)}
    grid = torch.tensor([mean[point] for point in points], dtype=torch.float64)
    steps = torch.tensor(across, dtype=torch.float64)
    if down is None:
        return Landscape(steps, None, grid, mean[origin])
    return Landscape(steps, torch.tensor(down, dtype=torch.float64), grid.view(len(down), len(across)), mean[origin])


def _steps(name: str, given: int | Sequence[float] | Tensor, span: float) -> list[float]:
    if isinstance(given, int):
        if given < 2:
            raise ConfigError(f"{name} must be at least 2 steps, found {given}")
        # Odd numbers of steps meet the centre exactly, which the rounding of linspace may not.
        return [span * (2 * i - (given - 1)) / (given - 1) for i in range(given)]
    steps = [float(step) for step in given]
    if not steps or not all(map(math.isfinite, steps)):
        raise ConfigError(f"{name} must be finite steps, at least one, found {steps[:5]}")
    return steps


class _Probe:
    """A copy of a model whose weights are moved in place."""

    def __init__(self, objective: Objective, ways: list[dict[str, Tensor]], batchnorm: str) -> None:
        self.objective = copy.copy(objective)
        model = copy.deepcopy(objective.model)
        if any(weight.ndim == 4 for weight in objective.weights.values()):
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.eval()
        if batchnorm == "batch":
            for module in model.modules():
                if isinstance(module, _BatchNorm):
                    module.training = True
                    module.momentum = 0.0
        self.objective.model = model
        parameters = dict(model.named_parameters())
        self.weights = [parameters[name].detach() for name in objective.weights]
        self.origin = [weight.clone() for weight in self.weights]
        # In the memory layout of the weights, or each addition would have to go element by element.
        self.ways = [
            [torch.empty_like(w).copy_(way[n]) for n, w in zip(objective.weights, self.weights, strict=True)]
            for way in ways
        ]

    def move(self, point: Point) -> None:
        torch._foreach_copy_(self.weights, self.origin)
        for step, way in zip(point, self.ways, strict=True):
            if step:
                torch._foreach_add_(self.weights, way, alpha=step)

    def loss(self, point: Point, pieces: list[tuple[Any, int]]) -> float:
        """The sum of the losses of some samples at a point."""
        with torch.inference_mode():
            self.move(point)
            return sum(float(self.objective.call(piece)) * size for piece, size in pieces)


def _threaded(
    objective: Objective, ways: list[dict[str, Tensor]], points: list[Point], workers: int, batchnorm: str
) -> tuple[list[float], int]:
    """The sum of the losses at each point, and the number of samples."""
    probes = [_Probe(objective, ways, batchnorm) for _ in range(workers)]
    totals = [0.0] * len(points)
    samples = 0
    for batch, size in objective:
        pieces = list(_pieces(objective, batch, size, batchnorm))
        totals[0] += probes[0].loss(points[0], pieces)
        finite_loss(totals[0])

        def share(worker: int, pieces: list[tuple[Any, int]] = pieces) -> None:
            for number in range(1 + worker, len(points), workers):
                totals[number] += probes[worker].loss(points[number], pieces)

        at_once([functools.partial(share, worker) for worker in range(workers)])
        samples += size
    return totals, samples


def _pieces(objective: Objective, batch: Any, size: int, batchnorm: str) -> Iterator[tuple[Any, int]]:
    """A batch in pieces that fit into the caches of a CPU, where that is no other loss."""
    if objective.loss is not None or not isinstance(batch, tuple) or batchnorm == "batch":
        yield batch, size
        return
    inputs, targets = batch
    if inputs.ndim != 4:
        yield batch, size
        return
    step = _PIECE if inputs.device.type == "cpu" else size
    for first in range(0, size, step):
        piece = inputs[first : first + step].contiguous(memory_format=torch.channels_last)
        yield (piece, targets[first : first + step]), len(piece)


def _vmapped(
    objective: Objective, ways: list[dict[str, Tensor]], points: list[Point], together: int
) -> tuple[list[float], int]:
    totals = [0.0] * len(points)
    samples = 0
    with evaluating(objective.model), torch.no_grad():
        for batch, size in objective:
            values = torch.vmap(lambda weights, batch=batch: objective.value(weights, batch))
            for first in range(0, len(points), together):
                some = points[first : first + together]
                steps = next(iter(objective.weights.values())).new_tensor(some)
                stacked = {
                    name: weight + sum(torch.tensordot(steps[:, [i]], way[name][None], 1) for i, way in enumerate(ways))
                    for name, weight in objective.weights.items()
                }
                for number, value in enumerate(values(stacked).tolist(), first):
                    totals[number] += value * size
            finite_loss(totals[0])
            samples += size
    return totals, samples
