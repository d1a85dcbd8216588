"""What the losses on views share: their input check."""

from __future__ import annotations

from torch import Tensor

from repertoire.errors import ShapeError

__all__ = ["check_views"]


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
