"""Similarities of chosen pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.ops._pairs import prepare
from repertoire.ops._tiles import Plan, Similarity, compute_dtype, inverse_lengths
from repertoire.ops._transforms import transformed
from repertoire.ops._walk import added
from repertoire.ops._workers import by_rows

__all__ = ["chosen", "pair_values"]


def pair_values(
    x: Tensor, y: Tensor | None, index: Tensor, *, similarity: Similarity = "dot", missing: float = 0.0
) -> Tensor:
    """Similarities of each row with a few chosen rows.

    Args:
        x: float `[N, d]`.
        y: float `[M, d]` of the same dtype and device; x itself if None.
        index: int64 `[N]` or `[N, k]`, indices of rows of y; -1 for none.
        similarity: "dot" (default), "cosine", or the distances "euclidean" (with gradient zero where it is zero) and
            "sqeuclidean".
        missing: the value, without a gradient, where the index is -1.

    Returns:
        float of the shape of the index; float32 for half precision. Differentiable as often as one likes. Rows are
        gathered a chunk at a time: memory is that of one chunk, unless the gradient is to be differentiable too.

    Raises:
        ShapeError: shapes, dtypes or arguments that do not fit each other.

    Example:
        >>> import torch
        >>> from repertoire.ops import pair_values
        >>> pair_values(torch.eye(2), None, torch.tensor([1, -1]), similarity="sqeuclidean")
        tensor([2., 0.])
    """
    plan, inputs = prepare(x, y, similarity, 1.0, None, None, symmetric=False, which={})
    if index.is_floating_point() or index.ndim not in (1, 2) or len(index) != len(x):
        raise ShapeError(f"index must be int64 [{len(x)}] or [{len(x)}, k], found {index.dtype} {list(index.shape)}")
    values = chosen(plan, index[:, None] if index.ndim == 1 else index, missing, inputs.x, inputs.y)
    return values.view(index.shape)


def chosen(plan: Plan, index: Tensor, missing: float, x: Tensor, y: Tensor | None) -> Tensor:
    """Similarities `[N, k]` of each row with those that an index names; `missing` where it is -1."""
    if transformed():
        return _chosen(plan, x, x if y is None else y, index, missing)
    found: Tensor = Chosen.apply(plan, index, missing, x, y)
    return found


class Chosen(torch.autograd.Function):
    """Similarities of rows with a few chosen ones, gathered a chunk at a time."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, index: Tensor, missing: float, x: Tensor, y: Tensor | None) -> Tensor:
        ctx.save_for_backward(index, x, y)
        ctx.plan, ctx.missing = plan, missing
        other = x if y is None else y
        values = x.new_full(index.shape, missing, dtype=compute_dtype(x))
        if len(other):

            def share(part: slice) -> None:
                for rows in _chunks(plan, index, x.shape[1], part):
                    values[rows] = _chosen(plan, x[rows], other, index[rows], missing)

            with torch.autocast(x.device.type, enabled=False):
                by_rows(share, x, other)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None, Tensor | None, Tensor | None]:
        index, x, y = ctx.saved_tensors
        plan: Plan = ctx.plan
        other = x if y is None else y
        wants_x, wants_y = ctx.needs_input_grad[3:]
        if not len(other):
            return None, None, None, x * 0, None if y is None else y * 0
        if torch.is_grad_enabled():
            left, right = x.view_as(x), other.view_as(other)
            values = _chosen(plan, left, right, index, ctx.missing)
            wanted = [t for t in (left, right) if t.requires_grad]
            found = iter(torch.autograd.grad(values, wanted, grad, create_graph=True))
            grad_x = next(found) if left.requires_grad else None
            grad_y = next(found) if right.requires_grad else None
            if y is None and grad_x is not None and grad_y is not None:
                return None, None, None, grad_x + grad_y, None
            return None, None, None, grad_x, grad_y
        grad_x = torch.zeros_like(x, dtype=compute_dtype(x)) if wants_x else None
        wants_other = wants_x if y is None else wants_y

        def share(part: slice) -> Tensor | None:
            # Rows of x belong to one share; any share may choose a row of y.
            into = torch.zeros_like(other, dtype=compute_dtype(other)) if wants_other else None
            for rows in _chunks(plan, index, x.shape[1], part):
                place = index[rows].clamp_min(0)
                weight = grad[rows].masked_fill(index[rows] < 0, 0.0)[..., None]
                left, right = (
                    _unit(plan, x[rows])[:, None],
                    _unit(plan, other[place.flatten()]).view(*place.shape, other.shape[1]),
                )
                if plan.distances:
                    difference = left - right
                    if plan.similarity == "euclidean":
                        length = torch.linalg.vector_norm(difference, dim=2, keepdim=True)
                        weight = (weight / length).masked_fill_(length == 0, 0.0)
                    else:
                        weight = 2 * weight
                    to_left = to_right = difference.mul_(weight)
                    sign = -1
                else:
                    to_left, to_right, sign = weight * right, weight * left, 1
                if grad_x is not None:
                    grad_x[rows] += _through_unit(plan, x[rows], to_left.sum(1))
                if into is not None:
                    flat = to_right.reshape(-1, other.shape[1])
                    if plan.normalise:
                        flat = _through_unit(plan, other[place.flatten()], flat)
                    into.index_add_(0, place.flatten(), flat, alpha=sign)
            return into

        with torch.autocast(x.device.type, enabled=False):
            sums = [into for into in by_rows(share, x, other, grad) if into is not None]
        into = added(sums) if sums else None
        if y is None and grad_x is not None and into is not None:
            grad_x += into
        grad_x = None if grad_x is None else grad_x.to(x.dtype)
        return None, None, None, grad_x, None if y is None or into is None else into.to(y.dtype)


def _chunks(plan: Plan, index: Tensor, width: int, part: slice) -> Iterator[slice]:
    """Some of the rows at a time, whose chosen rows, of so many numbers, take no more memory than a tile."""
    return plan.slices(part.stop, part.start, max(1, plan.tile * plan.tall // max(1, index.shape[1] * width)))


def _unit(plan: Plan, x: Tensor) -> Tensor:
    return plan.rows(x, None, slice(None))


def _through_unit(plan: Plan, x: Tensor, grad: Tensor) -> Tensor:
    """From the gradient of the rows as the tiles saw them to that of the rows."""
    if not plan.normalise:
        return grad
    unit = _unit(plan, x)
    return (grad - unit * (unit * grad).sum(1, keepdim=True)) * inverse_lengths(x.to(grad.dtype))


def _chosen(plan: Plan, x: Tensor, y: Tensor, index: Tensor, missing: float) -> Tensor:
    left = _unit(plan, x)[:, None]
    right = _unit(plan, y[index.clamp_min(0).flatten()]).view(*index.shape, y.shape[1])
    if plan.distances:
        difference = left - right
        values = difference.square().sum(2)
        if plan.similarity == "euclidean":
            # Square roots of ones in place of zeros, so that their derivatives are numbers.
            positive = values > 0
            values = values.where(positive, 1.0).sqrt().where(positive, 0.0)
    else:
        values = (left * right).sum(2)
    return values.masked_fill(index < 0, missing)
