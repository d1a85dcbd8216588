"""What the losses on views share: their input check, and the precision they compute in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import Annotated

import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses.contracts._base import ViewsLoss
from repertoire.ranges import Positive

__all__ = [
    "LearnedScale",
    "check_views",
    "full_precision",
    "mean_over_pairs",
    "similarities_of_views",
]


def check_views(views: tuple[Tensor, ...]) -> None:
    """Raises `ShapeError` unless there are two views or more, all float `[N, d]`. Looks at no values."""
    if len(views) < 2:
        raise ShapeError(f"a loss on views needs at least two views of every sample, found {len(views)}")
    first = views[0]
    for number, view in enumerate(views):
        if view.ndim != 2 or not view.is_floating_point():
            raise ShapeError(f"view {number} must be a floating point [N, d], found {view.dtype} {list(view.shape)}")
        if view.shape != first.shape or view.dtype != first.dtype:
            raise ShapeError(
                f"view {number} must be {first.dtype} {list(first.shape)} like the first view, "
                f"found {view.dtype} {list(view.shape)}"
            )


class LearnedScale(ViewsLoss):
    """Base of losses on views whose temperature is learned.

    The parameter is the logarithm of one over the temperature. Beyond the bound the value is that of the bound, but the
    gradient is the parameter's, which would else end there for good; `after_update` takes the parameter back.

    Args:
        temperature: at the start, positive.
        least_temperature: the least that it may become, positive.
        learn: whether the temperature is learned.

    Raises:
        ConfigError: a temperature that is not positive, or below the least.
    """

    def __init__(
        self,
        temperature: Annotated[float, Positive],
        least_temperature: Annotated[float, Positive],
        learn: bool,
    ) -> None:
        super().__init__()
        if temperature < least_temperature:
            raise ConfigError(
                f"temperature must not be below least_temperature, {least_temperature}; found {temperature}"
            )
        self.largest = -math.log(least_temperature)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)), requires_grad=learn)

    @property
    def scale(self) -> Tensor:
        """One over the temperature, a tensor without dimensions."""
        excess = (self.log_scale - self.largest).clamp_min(0).detach()
        return (self.log_scale - excess).exp()

    @property
    def temperature(self) -> float:
        """The temperature as it is now."""
        return 1 / float(self.scale.detach())

    @torch.no_grad()
    def after_update(self) -> None:
        """Keeps the temperature in its bounds."""
        super().after_update()
        self.log_scale.clamp_(max=self.largest)


@contextmanager
def full_precision(*tensors: Tensor) -> Iterator[list[Tensor]]:
    """The tensors, those of half precision as float32, and products of theirs in full precision as well: a covariance
    summed in half precision, which autocast would make of it, has three digits."""
    with torch.autocast(tensors[0].device.type, enabled=False):
        yield [t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in tensors]


def mean_over_pairs(views: list[Tensor], loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Mean of a loss of two views over all pairs of views."""
    return torch.stack([loss(x, y) for x, y in combinations(views, 2)]).mean()


def similarities_of_views(z: Tensor, count: int) -> Tensor:
    """Dot products of each embedding with the other views of its sample.

    Args:
        z: float `[V * N, d]`, the embeddings of V views one after the other.
        count: V, at least 2.

    Returns:
        float `[V * N, V - 1]`.
    """
    views = z.view(count, -1, z.shape[1])
    return torch.stack([(views * views.roll(-step, 0)).sum(2).flatten() for step in range(1, count)], 1)
