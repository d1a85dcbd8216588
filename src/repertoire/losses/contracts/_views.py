"""What the losses on views share: their input check, and the precision they compute in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.losses.contracts._base import check_finite

__all__ = [
    "check_view_count",
    "check_views",
    "check_weights",
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


def check_view_count(views: int) -> None:
    """Raises `ValueError` unless this many views can be compared."""
    if views < 2:
        raise ValueError(f"views must be at least 2, found {views}")


def check_weights(**weights: float) -> None:
    """Raises `ValueError` unless all are 0 or more."""
    for name, value in weights.items():
        if not value >= 0:
            raise ValueError(f"{name} must be 0 or more, found {value}")
    check_finite(**weights)


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
