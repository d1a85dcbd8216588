"""The backward pass of sums over pairs: makes the tiles again and turns their slopes into gradients of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from repertoire.ops._tiles import Inputs, Plan, compute_dtype, inverse_lengths
from repertoire.ops._walk import Tile, Walk

__all__ = ["dense_gradients", "gradients", "wants_base"]


def gradients(walk: Walk, wants: Sequence[bool], slope: Callable[[Walk, Tile], Tensor]) -> list[Tensor | None]:
    """The gradients of a walk's inputs.

    Args:
        walk: the same as forward; with `base`, if :func:`wants_base`.
        wants: for each of the inputs, whether it needs a gradient.
        slope: gives dL/d(value) of a tile of a share of the walk, and may write it over the tile.
    """
    plan, inputs = walk.plan, walk.inputs
    wanted = Inputs(*wants)  # type: ignore[arg-type]
    x, y = inputs.x, inputs.y
    with torch.autocast(x.device.type, enabled=False):
        wants_left = bool(wanted.x or wanted.x_factor)
        wants_right = bool(wanted.y) if y is not None else wants_left and not plan.symmetric
        # Of one set rows and columns are the same; only one share may write to both in one place.
        together = y is None and walk.shares == 1
        # What belongs to rows is the same tensor for all shares of the walk, each of which writes to its own rows.
        grad_left = _zeros(x) if wants_left else None
        grad_bias = _zeros(x, 1) if wanted.bias else None
        grad_row_scale = _zeros(x, 1) if wanted.row_scale else None
        row_scale = walk.arrange(inputs.row_scale)
        factor = plan.scale * (-2 if plan.distances else 1)

        def share(part: Walk) -> _Columns:
            own = _zeros(x, 1) if plan.distances and wants_left else None
            sums = _Columns(
                # What mirrored tiles add is kept transposed: a product with the transpose of a tile takes a seventh
                # longer.
                across=_zeros(x.T) if plan.symmetric and wants_left else None,
                grad_right=(grad_left if together else _zeros(inputs.other)) if wants_right else None,
                # |x_i|² stands in every distance of row i: its gradient needs only the sum of the slopes.
                own=own,
                y_own=(own if together else _zeros(inputs.other, 1)) if plan.distances and wants_right else None,
                grad_y_bias=_zeros(inputs.other, 1) if wanted.y_bias else None,
            )
            across, grad_right, _, y_own, grad_y_bias = sums
            for tile in part:
                rows, columns = tile.rows, tile.columns
                g = slope(part, tile)
                if grad_bias is not None:
                    grad_bias[rows] += g.sum(1)
                if grad_y_bias is not None:
                    grad_y_bias[columns] += g.sum(0)
                if grad_row_scale is not None and tile.base is not None:
                    grad_row_scale[rows] += (g * tile.base).sum(1) * plan.scale
                if row_scale is not None:
                    g = g * row_scale[rows, None]
                if plan.similarity == "euclidean" and tile.base is not None:
                    # d = sqrt(d²) has the slope 1 / 2d, and none where it is zero.
                    g = g.div_(tile.base.mul_(2)).masked_fill_(tile.base == 0, 0.0)
                if grad_left is not None:
                    grad_left[rows].addmm_(g, tile.right, alpha=factor)
                    if own is not None:
                        own[rows] += g.sum(1)
                if across is not None and tile.mirrored:
                    across[:, columns].addmm_(tile.left.T, g, alpha=factor)
                    if own is not None:
                        own[columns] += g.sum(0)
                elif grad_right is not None:
                    grad_right[columns].addmm_(g.T, tile.left, alpha=factor)
                    if y_own is not None:
                        y_own[columns] += g.sum(0)
            return sums

        across, grad_right, own, y_own, grad_y_bias = _added(walk.over(share))
        if across is not None and grad_left is not None:
            for rows in plan.slices(len(x)):
                grad_left[rows] += across[:, rows].T
            del across
        if y is None and not together and grad_left is not None and grad_right is not None:
            grad_left += grad_right
            if own is not None and y_own is not None:
                own += y_own
        found_x, found_x_factor = _finish(walk, x, inputs.x_factor, plan.order, grad_left, own)
        found_y = None if y is None else _finish(walk, y, None, plan.y_order, grad_right, y_own)[0]
    return [
        found_x if wanted.x else None,
        found_y,
        None if grad_bias is None else walk.restore(grad_bias),
        None if grad_y_bias is None else walk.restore_y(grad_y_bias),
        None if grad_row_scale is None else walk.restore(grad_row_scale),
        found_x_factor if wanted.x_factor else None,
    ]


class _Columns(NamedTuple):
    """What a share of a walk sums over columns, which belong to all shares."""

    across: Tensor | None
    grad_right: Tensor | None
    own: Tensor | None
    y_own: Tensor | None
    grad_y_bias: Tensor | None


def _added(found: Sequence[_Columns]) -> _Columns:
    """The sums over all shares, added in order; overwrites those of the first."""
    first, *rest = found
    for more in rest:
        for total, part in zip(first, more, strict=True):
            if total is not None and part is not None:
                total.add_(part)
    return first


def _finish(
    walk: Walk, x: Tensor, factor: Tensor | None, order: Tensor | None, grad: Tensor | None, own: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """From the gradient of the rows as the tiles saw them to that of the rows, and of their factors, as given."""
    if grad is None:
        return None, None
    plan = walk.plan
    result = grad if order is None and x.dtype == grad.dtype else torch.empty_like(x)
    found_factor = None if factor is None else torch.zeros_like(factor)
    for place in plan.slices(len(x)):
        rows: slice | Tensor = place if order is None else order[place]
        piece = grad[place]
        if own is not None:
            piece.addcmul_(plan.rows(x, factor, rows), own[place, None], value=2 * plan.scale)
        if factor is not None and found_factor is not None:
            found_factor[rows] = (piece * plan.rows(x, None, rows)).sum(1)
            piece.mul_(factor[rows, None])
        if plan.normalise:
            unit = plan.rows(x, None, rows)
            piece.sub_(unit * (unit * piece).sum(1, keepdim=True)).mul_(inverse_lengths(x[rows].to(piece.dtype)))
        if result is not grad:
            result[rows] = piece.to(x.dtype)
    return result, found_factor


def _zeros(like: Tensor, dimensions: int = 2) -> Tensor:
    return like.new_zeros(like.shape[:dimensions], dtype=compute_dtype(like))


def wants_base(plan: Plan, wants: Sequence[bool]) -> bool:
    """True if the backward pass needs similarities before the scale: for the root in a distance, or for the scale."""
    return plan.similarity == "euclidean" or bool(Inputs(*wants).row_scale)  # type: ignore[arg-type]


def dense_gradients(
    tensors: Sequence[Tensor | None], grad: Tensor, dense: Callable[..., Tensor]
) -> list[Tensor | None]:
    """Gradients that have gradients: through the matrix of all pairs, by autograd."""
    with torch.enable_grad():
        # Views, so that a tensor given twice gets two gradients.
        views = [None if t is None else t.view_as(t) for t in tensors]
        wanted = [v for v in views if v is not None and v.requires_grad]
        found = iter(torch.autograd.grad(dense(*views), wanted, grad, create_graph=True, allow_unused=True))
    return [next(found) if v is not None and v.requires_grad else None for v in views]
