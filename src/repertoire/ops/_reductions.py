"""Sums over pairs that have a gradient: what is summed, and the backward pass that makes the tiles again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.ops._tiles import Inputs, Plan, Tile, compute_dtype, inverse_lengths

__all__ = ["FUNCTIONS", "Function", "LogSumExp", "PairFunction", "PairSum"]

Function = Literal["exp", "sigmoid", "softplus", "hinge", "squared-hinge"]
PairFunction = Callable[..., Tensor]


class _Named(NamedTuple):
    """A function of a similarity that is zero, with slope zero, at minus infinity. Both overwrite the tile."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


def _sigmoid_slope(tile: Tensor) -> Tensor:
    tile.sigmoid_()
    return tile.sub_(tile.square())


FUNCTIONS: dict[str, _Named] = {
    "exp": _Named(Tensor.exp_, Tensor.exp_),
    "sigmoid": _Named(Tensor.sigmoid_, _sigmoid_slope),
    "softplus": _Named(lambda tile: F.softplus(tile, threshold=40), Tensor.sigmoid_),
    "hinge": _Named(Tensor.relu_, lambda tile: tile.gt_(0)),
    "squared-hinge": _Named(lambda tile: tile.relu_().square_(), lambda tile: tile.relu_().mul_(2)),
}


class LogSumExp(torch.autograd.Function):
    """Log-sum-exp of each row. Keeps one number a row."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, bounded: bool, *tensors: Tensor | None) -> Tensor:
        inputs = _inputs(tensors)
        x = inputs.x
        with torch.autocast(x.device.type, enabled=False):
            total = x.new_full((len(x),), 0.0 if bounded else -torch.inf, dtype=compute_dtype(x))
            for tile in plan.walk(inputs, fill=-torch.inf):
                if bounded:
                    tile.values.exp_()
                    total[tile.rows] += tile.values.sum(1)
                    if tile.mirrored:
                        total[tile.columns] += tile.values.sum(0)
                else:
                    total[tile.rows] = torch.logaddexp(total[tile.rows], tile.values.logsumexp(1))
                    if tile.mirrored:
                        total[tile.columns] = torch.logaddexp(total[tile.columns], tile.values.logsumexp(0))
            lse = total.log_() if bounded else total
        ctx.save_for_backward(lse, *tensors)
        ctx.plan, ctx.bounded = plan, bounded
        return lse

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        lse, *tensors = ctx.saved_tensors
        plan: Plan = ctx.plan
        if torch.is_grad_enabled():
            return None, None, *_dense_gradients(tensors, grad, lambda inputs: _dense_logsumexp(plan, inputs))
        # A row without pairs has lse = -inf; +inf in its place makes its softmax zero instead of not a number.
        shift = lse.masked_fill(lse == -torch.inf, torch.inf)
        weight = grad * torch.exp(-shift) if ctx.bounded else grad

        def slope(tile: Tile) -> Tensor:
            values = tile.values
            if ctx.bounded:
                values.exp_()
                # exp(s_ij) stands in the sums of row i and, in one set, of row j: the weights of both apply.
                return _weigh(values, weight[tile.rows], weight[tile.columns] if plan.symmetric else None)
            if not plan.symmetric:
                return values.sub_(shift[tile.rows, None]).exp_().mul_(weight[tile.rows, None])
            across = (values - shift[tile.columns]).exp_().mul_(weight[tile.columns])
            return values.sub_(shift[tile.rows, None]).exp_().mul_(weight[tile.rows, None]).add_(across)

        return None, None, *_gradients(plan, _inputs(tensors), ctx.needs_input_grad[2:], slope, fill=-torch.inf)


class PairSum(torch.autograd.Function):
    """Sum of a function of the similarity over the pairs of each row. Keeps nothing but its inputs."""

    @staticmethod
    def forward(
        ctx: Any, plan: Plan, function: str | PairFunction, y_weight: Tensor | None, count: int, *tensors: Tensor | None
    ) -> Tensor:
        inputs, parameters = _inputs(tensors[:-count] if count else tensors), tensors[len(tensors) - count :]
        x = inputs.x
        with torch.autocast(x.device.type, enabled=False):
            total = x.new_zeros(len(x), dtype=compute_dtype(x))
            for tile in plan.walk(inputs, fill=-torch.inf if isinstance(function, str) else None):
                values = _value(plan, function, tile, parameters)
                if y_weight is None:
                    total[tile.rows] += values.sum(1)
                else:
                    total[tile.rows] += values @ y_weight[tile.columns]
                if tile.mirrored:
                    total[tile.columns] += values.sum(0)
        ctx.save_for_backward(y_weight, *tensors)
        ctx.plan, ctx.function, ctx.count = plan, function, count
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y_weight, *tensors = ctx.saved_tensors
        plan: Plan = ctx.plan
        function: str | PairFunction = ctx.function
        count: int = ctx.count
        if torch.is_grad_enabled():

            def dense(*given: Tensor | None) -> Tensor:
                inputs = _inputs(given[1 : len(given) - count])
                return _dense_sum(plan, function, given[0], inputs, given[len(given) - count :])

            first, *rest = _dense_gradients([y_weight, *tensors], grad, dense, unpack=True)
            return None, None, first, None, *rest
        inputs, parameters = _inputs(tensors[: len(tensors) - count]), tensors[len(tensors) - count :]
        wants = ctx.needs_input_grad
        wants_parameters = wants[len(wants) - count :]
        grad_y_weight = None if y_weight is None or not wants[2] else torch.zeros_like(y_weight)
        grad_parameters = [
            torch.zeros_like(p) if p is not None and want else None
            for p, want in zip(parameters, wants_parameters, strict=True)
        ]

        def slope(tile: Tile) -> Tensor:
            left = grad[tile.rows]
            right = None if y_weight is None else y_weight[tile.columns]
            if not isinstance(function, str):
                return _traced_slope(plan, function, tile, parameters, left, right, grad_y_weight, grad_parameters)
            if grad_y_weight is not None:
                grad_y_weight[tile.columns] += left @ FUNCTIONS[function].value(tile.values.clone())
            result = FUNCTIONS[function].slope(tile.values)
            if plan.symmetric:
                return _weigh(result, left, grad[tile.columns])
            result.mul_(left[:, None])
            return result if right is None else result.mul_(right)

        fill = -torch.inf if isinstance(function, str) else None
        found = _gradients(plan, inputs, wants[4 : len(wants) - count], slope, fill=fill)
        return None, None, grad_y_weight, None, *found, *grad_parameters


def _inputs(tensors: Any) -> Inputs:
    return Inputs(*tensors)


def _weigh(values: Tensor, rows: Tensor, columns: Tensor | None) -> Tensor:
    """Multiplies the entry (i, j) by the weight of row i, plus that of column j if the pair stands for both."""
    return values.mul_(rows[:, None] if columns is None else rows[:, None] + columns)


def _value(plan: Plan, function: str | PairFunction, tile: Tile, parameters: Any) -> Tensor:
    if isinstance(function, str):
        return FUNCTIONS[function].value(tile.values)
    keep = plan.keep(tile.values, tile.rows, tile.columns)
    values = _called(function, tile.values, tile.rows, tile.columns, parameters)
    return values if keep is None else values.masked_fill(~keep, 0.0)


def _called(function: PairFunction, values: Tensor, rows: slice, columns: slice, parameters: Any) -> Tensor:
    result = function(values, rows, columns, *parameters)
    if result.shape != values.shape:
        raise ShapeError(
            f"function must give one number a pair, {list(values.shape)} for this tile, found {list(result.shape)}"
        )
    return result


def _traced_slope(
    plan: Plan,
    function: PairFunction,
    tile: Tile,
    parameters: Any,
    left: Tensor,
    right: Tensor | None,
    grad_y_weight: Tensor | None,
    grad_parameters: list[Tensor | None],
) -> Tensor:
    """The slope of a function that autograd follows within the tile."""
    keep = plan.keep(tile.values, tile.rows, tile.columns)
    with torch.enable_grad():
        values = tile.values.detach().requires_grad_()
        wanted = [None if p is None else p.detach().requires_grad_(p.is_floating_point()) for p in parameters]
        result = _called(function, values, tile.rows, tile.columns, wanted)
        if keep is not None:
            result = result.masked_fill(~keep, 0.0)
    if grad_y_weight is not None:
        grad_y_weight[tile.columns] += left @ result.detach()
    weight = left[:, None].expand_as(result) if right is None else left[:, None] * right
    targets = [p for p, g in zip(wanted, grad_parameters, strict=True) if g is not None and p is not None]
    if not result.requires_grad:
        return torch.zeros_like(tile.values)
    slope, *others = torch.autograd.grad(result, [values, *targets], weight, allow_unused=True)
    for total, found in zip([g for g in grad_parameters if g is not None], others, strict=True):
        if found is not None:
            total += found
    return torch.zeros_like(tile.values) if slope is None else slope


def _gradients(
    plan: Plan, inputs: Inputs, wants: Any, slope: Callable[[Tile], Tensor], fill: float | None
) -> list[Tensor | None]:
    """The gradients of all inputs, given dL/d(value) of each tile, which `slope` may write over the tile."""
    wanted = _inputs(wants)
    x, y = inputs.x, inputs.y
    with torch.autocast(x.device.type, enabled=False):
        wants_left = bool(wanted.x or wanted.x_factor)
        wants_right = wants_left if y is None else bool(wanted.y)
        grad_left = _zeros(x) if wants_left else None
        grad_right = grad_left if y is None else _zeros(y) if wants_right else None
        # |x_i|² stands in every distance of row i: its gradient needs only the sum of the slopes.
        own = _zeros(x, 1) if plan.distances and wants_left else None
        y_own = own if y is None else _zeros(y, 1) if plan.distances and wants_right else None
        grad_bias = _zeros(x, 1) if wanted.bias else None
        grad_y_bias = _zeros(inputs.other, 1) if wanted.y_bias else None
        grad_row_scale = _zeros(x, 1) if wanted.row_scale else None
        base = plan.similarity == "euclidean" or grad_row_scale is not None
        factor = plan.scale * (-2 if plan.distances else 1)
        for tile in plan.walk(inputs, fill=fill, base=base):
            rows, columns = tile.rows, tile.columns
            g = slope(tile)
            if grad_bias is not None:
                grad_bias[rows] += g.sum(1)
            if grad_y_bias is not None:
                grad_y_bias[columns] += g.sum(0)
            if grad_row_scale is not None and tile.base is not None:
                grad_row_scale[rows] += (g * tile.base).sum(1) * plan.scale
            if inputs.row_scale is not None:
                g = g * inputs.row_scale[rows, None]
            if plan.similarity == "euclidean" and tile.base is not None:
                # d = sqrt(d²) has the slope 1 / 2d, and none where it is zero.
                g = g.div_(tile.base.mul_(2)).masked_fill_(tile.base == 0, 0.0)
            if grad_left is not None:
                grad_left[rows].addmm_(g, tile.right, alpha=factor)
                if own is not None:
                    own[rows] += g.sum(1)
            if grad_right is not None and (tile.mirrored or not plan.symmetric):
                grad_right[columns].addmm_(g.T, tile.left, alpha=factor)
                if y_own is not None:
                    y_own[columns] += g.sum(0)
        found_x, found_x_factor = _finish(plan, x, inputs.x_factor, grad_left, own, wanted.x, wanted.x_factor)
        found_y = None if y is None else _finish(plan, y, None, grad_right, y_own, wanted.y, False)[0]
    return [found_x, found_y, grad_bias, grad_y_bias, grad_row_scale, found_x_factor]


def _finish(
    plan: Plan,
    x: Tensor,
    factor: Tensor | None,
    grad: Tensor | None,
    own: Tensor | None,
    wants_x: Any,
    wants_factor: Any,
) -> tuple[Tensor | None, Tensor | None]:
    """From the gradient of the rows as the tiles saw them to that of the rows, and of their factors, as given."""
    if grad is None:
        return None, None
    found_factor = torch.zeros_like(factor) if factor is not None and wants_factor else None
    for rows in plan.slices(len(x)):
        piece = grad[rows]
        if own is not None:
            piece.addcmul_(plan.rows(x, factor, rows), own[rows, None], value=2 * plan.scale)
        if factor is not None:
            if found_factor is not None:
                found_factor[rows] = (piece * plan.rows(x, None, rows)).sum(1)
            piece.mul_(factor[rows, None])
        if plan.normalise:
            unit = plan.rows(x, None, rows)
            piece.sub_(unit * (unit * piece).sum(1, keepdim=True)).mul_(inverse_lengths(x[rows].to(piece.dtype)))
    return (grad.to(x.dtype) if wants_x else None), found_factor


def _zeros(like: Tensor, dimensions: int = 2) -> Tensor:
    return like.new_zeros(like.shape[:dimensions], dtype=compute_dtype(like))


def _dense_gradients(
    tensors: Any, grad: Tensor, dense: Callable[..., Tensor], unpack: bool = False
) -> list[Tensor | None]:
    """Gradients that have gradients: through the matrix of all pairs, by autograd."""
    with torch.enable_grad():
        # Views, so that a tensor given twice gets two gradients.
        views = [None if t is None else t.view_as(t) for t in tensors]
        wanted = [v for v in views if v is not None and v.requires_grad]
        result = dense(*views) if unpack else dense(_inputs(views))
        found = iter(torch.autograd.grad(result, wanted, grad, create_graph=True, allow_unused=True))
    return [next(found) if v is not None and v.requires_grad else None for v in views]


def _dense_logsumexp(plan: Plan, inputs: Inputs) -> Tensor:
    values, keep = plan.dense(inputs)
    if keep is None:
        return values.logsumexp(1) if values.shape[1] else values.sum(1) - torch.inf
    empty = ~keep.any(1)
    # Zeros in a row without pairs, so that its gradient is zero instead of not a number.
    values = values.masked_fill(~keep, -torch.inf).masked_fill(empty[:, None], 0.0)
    return values.logsumexp(1).masked_fill(empty, -torch.inf)


def _dense_sum(
    plan: Plan, function: str | PairFunction, y_weight: Tensor | None, inputs: Inputs, parameters: Any
) -> Tensor:
    values, keep = plan.dense(inputs)
    whole = slice(0, len(inputs.x)), slice(0, len(inputs.other))
    if isinstance(function, str):
        named = {
            "exp": torch.exp,
            "sigmoid": torch.sigmoid,
            "softplus": lambda v: F.softplus(v, threshold=40),
            "hinge": torch.relu,
            "squared-hinge": lambda v: torch.relu(v).square(),
        }
        result = named[function](values)
    else:
        result = _called(function, values, *whole, parameters)
    if keep is not None:
        result = result.masked_fill(~keep, 0.0)
    return result.sum(1) if y_weight is None else result @ y_weight
