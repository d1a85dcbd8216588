"""Sums over pairs that have a gradient: log-sum-exp, and sums of a function of the similarity."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.ops._backward import dense_gradients, gradients, wants_base
from repertoire.ops._tiles import Inputs, Plan, Tile, Walk, compute_dtype

__all__ = ["FUNCTIONS", "Function", "LogSumExp", "PairFunction", "PairSum", "add_powers"]

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
            walk = Walk(plan, inputs, fill=-torch.inf, factor=_power_factor(plan))
            power = _power(walk)
            # Unbounded sums are kept as a largest value and a sum relative to it.
            total = x.new_zeros(len(x), dtype=compute_dtype(x))
            largest = None if bounded else torch.full_like(total, -torch.inf)
            for tile in walk:
                if largest is None:
                    power(tile.values)
                    total[tile.rows] += tile.values.sum(1)
                    if tile.mirrored:
                        total[tile.columns] += tile.values.sum(0)
                    continue
                if tile.mirrored:
                    add_powers(power, total, largest, tile.columns, tile.values.clone(), 0)
                add_powers(power, total, largest, tile.rows, tile.values, 1)
            lse = total.log_()
            if largest is not None:
                lse.add_(largest, alpha=1 / walk.factor)
            lse = walk.restore(lse)
        ctx.save_for_backward(lse, *tensors)
        ctx.plan, ctx.bounded = plan, bounded
        return lse

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        lse, *tensors = ctx.saved_tensors
        plan: Plan = ctx.plan
        if torch.is_grad_enabled():
            return None, None, *dense_gradients(tensors, grad, lambda *given: _dense_logsumexp(plan, Inputs(*given)))
        wants = ctx.needs_input_grad[2:]
        walk = Walk(plan, _inputs(tensors), fill=-torch.inf, factor=_power_factor(plan), base=wants_base(plan, wants))
        power = _power(walk)
        # A row without pairs has lse = -inf; +inf in its place makes its softmax zero instead of not a number.
        shift = walk.arrange(lse.masked_fill(lse == -torch.inf, torch.inf))
        weight = walk.arrange(grad)
        if ctx.bounded:
            weight = weight * torch.exp(-shift)
        shift = shift * walk.factor

        def slope(tile: Tile) -> Tensor:
            values = tile.values
            if ctx.bounded:
                # exp(s_ij) stands in the sums of row i and, in one set, of row j: the weights of both apply.
                return _weigh(power(values), weight[tile.rows], weight[tile.columns] if plan.symmetric else None)
            if not plan.symmetric:
                return power(values.sub_(shift[tile.rows, None])).mul_(weight[tile.rows, None])
            across = power(values - shift[tile.columns]).mul_(weight[tile.columns])
            return power(values.sub_(shift[tile.rows, None])).mul_(weight[tile.rows, None]).add_(across)

        return None, None, *gradients(walk, wants, slope)


class PairSum(torch.autograd.Function):
    """Sum of a function of the similarity over the pairs of each row. Keeps nothing but its inputs."""

    @staticmethod
    def forward(
        ctx: Any, plan: Plan, function: str | PairFunction, y_weight: Tensor | None, count: int, *tensors: Tensor | None
    ) -> Tensor:
        inputs, parameters = _inputs(tensors[:-count] if count else tensors), tensors[len(tensors) - count :]
        x = inputs.x
        with torch.autocast(x.device.type, enabled=False):
            walk = _walk(plan, function, inputs)
            weight = walk.arrange_y(y_weight)
            total = x.new_zeros(len(x), dtype=compute_dtype(x))
            for tile in walk:
                values = _value(walk, function, tile, parameters)
                if weight is None:
                    total[tile.rows] += values.sum(1)
                else:
                    total[tile.rows] += values @ weight[tile.columns]
                if tile.mirrored:
                    total[tile.columns] += values.sum(0)
            total = walk.restore(total)
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

            first, *rest = dense_gradients([y_weight, *tensors], grad, dense)
            return None, None, first, None, *rest
        inputs, parameters = _inputs(tensors[: len(tensors) - count]), tensors[len(tensors) - count :]
        wants = ctx.needs_input_grad[4 : len(ctx.needs_input_grad) - count]
        walk = _walk(plan, function, inputs, base=wants_base(plan, wants))
        grad, weight = walk.arrange(grad), walk.arrange_y(y_weight)
        grad_weight = torch.zeros_like(weight) if weight is not None and ctx.needs_input_grad[2] else None
        grad_parameters = [
            torch.zeros_like(p) if p is not None and want else None
            for p, want in zip(parameters, ctx.needs_input_grad[len(ctx.needs_input_grad) - count :], strict=True)
        ]

        def slope(tile: Tile) -> Tensor:
            left = grad[tile.rows]
            right = None if weight is None else weight[tile.columns]
            if not isinstance(function, str):
                return _traced_slope(plan, function, tile, parameters, left, right, grad_weight, grad_parameters)
            if grad_weight is not None:
                grad_weight[tile.columns] += left @ _value(walk, function, tile._replace(values=tile.values.clone()))
            result = _power(walk)(tile.values) if function == "exp" else FUNCTIONS[function].slope(tile.values)
            if plan.symmetric:
                return _weigh(result, left, grad[tile.columns])
            result.mul_(left[:, None])
            return result if right is None else result.mul_(right)

        found = gradients(walk, wants, slope)
        grad_y_weight = None if grad_weight is None else walk.restore_y(grad_weight)
        return None, None, grad_y_weight, None, *found, *grad_parameters


def _inputs(tensors: Any) -> Inputs:
    return Inputs(*tensors)


def _power_factor(plan: Plan) -> float:
    """What to multiply values by whose exponential is wanted.

    Powers of two take a third of the time of powers of e on a CPU, and the factor costs nothing: it is part of the
    scale. But a mask is to see the values as they are.
    """
    return math.log2(math.e) if plan.mask is None else 1.0


def _power(walk: Walk) -> Callable[[Tensor], Tensor]:
    """The function in place that is the exponential of what was multiplied by that."""
    return Tensor.exp_ if walk.factor == 1 else Tensor.exp2_


def _walk(plan: Plan, function: str | PairFunction, inputs: Inputs, base: bool = False) -> Walk:
    if not isinstance(function, str):
        return Walk(plan.unordered, inputs, fill=None, base=base)
    factor = _power_factor(plan) if function == "exp" else 1.0
    return Walk(plan, inputs, fill=-torch.inf, factor=factor, base=base)


def add_powers(
    power: Callable[[Tensor], Tensor], total: Tensor, largest: Tensor, rows: slice, values: Tensor, dimension: int
) -> None:
    """Adds the powers of a tile along a dimension, relative to a largest value that grows; overwrites the tile."""
    before = largest[rows]
    after = torch.maximum(before, values.amax(dimension))
    # Zero in place of -inf, so that the difference of the two is not asked for.
    origin = after.masked_fill(after == -torch.inf, 0.0)
    found = power(values.sub_(origin[:, None] if dimension else origin)).sum(dimension)
    total[rows] = total[rows] * power(before - origin) + found
    largest[rows] = after


def _weigh(values: Tensor, rows: Tensor, columns: Tensor | None) -> Tensor:
    """Multiplies the entry (i, j) by the weight of row i, plus that of column j if the pair stands for both."""
    return values.mul_(rows[:, None] if columns is None else rows[:, None] + columns)


def _value(walk: Walk, function: str | PairFunction, tile: Tile, parameters: Sequence[Tensor | None] = ()) -> Tensor:
    if function == "exp":
        return _power(walk)(tile.values)
    if isinstance(function, str):
        return FUNCTIONS[function].value(tile.values)
    keep = walk.plan.keep(tile.values, tile.rows, tile.columns)
    values = _called(function, tile.values, tile.rows, tile.columns, parameters)
    return values if keep is None else values.masked_fill(~keep, 0.0)


def _called(
    function: PairFunction, values: Tensor, rows: slice, columns: slice, parameters: Sequence[Tensor | None]
) -> Tensor:
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
    parameters: Sequence[Tensor | None],
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


def _dense_logsumexp(plan: Plan, inputs: Inputs) -> Tensor:
    values, keep = plan.dense(inputs)
    if keep is None:
        return values.logsumexp(1) if values.shape[1] else values.sum(1) - torch.inf
    empty = ~keep.any(1)
    # Zeros in a row without pairs, so that its gradient is zero instead of not a number.
    values = values.masked_fill(~keep, -torch.inf).masked_fill(empty[:, None], 0.0)
    return values.logsumexp(1).masked_fill(empty, -torch.inf)


def _dense_sum(
    plan: Plan,
    function: str | PairFunction,
    y_weight: Tensor | None,
    inputs: Inputs,
    parameters: Sequence[Tensor | None],
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
