"""Sum over the pairs of each row of a function of their similarity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.ops._backward import dense_gradients, gradients, wants_base
from repertoire.ops._exponentials import Weigh, power_factor, power_of
from repertoire.ops._tiles import Inputs, Plan, compute_dtype
from repertoire.ops._walk import Tile, Walk, added

__all__ = ["FUNCTIONS", "Function", "PairFunction", "PairSum", "dense_sum", "sum_gradients", "sum_over"]

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


class PairSum(torch.autograd.Function):
    """Sum of a function of the similarity over the pairs of each row. Keeps nothing but its inputs."""

    @staticmethod
    def forward(
        ctx: Any, plan: Plan, function: str | PairFunction, y_weight: Tensor | None, count: int, *tensors: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(y_weight, *tensors)
        ctx.plan, ctx.function, ctx.count = plan, function, count
        rows, parameters = _apart(tensors, count)
        return sum_over(plan, function, y_weight, Inputs(*rows), parameters)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y_weight, *tensors = ctx.saved_tensors
        plan: Plan = ctx.plan
        function: str | PairFunction = ctx.function
        if torch.is_grad_enabled():

            def dense(*given: Tensor | None) -> Tensor:
                rows, parameters = _apart(given[1:], ctx.count)
                return dense_sum(plan, function, given[0], Inputs(*rows), parameters)

            first, *rest = dense_gradients([y_weight, *tensors], grad, dense)
            return None, None, first, None, *rest
        rows, parameters = _apart(tensors, ctx.count)
        wants, wants_parameters = _apart(ctx.needs_input_grad[4:], ctx.count)
        first, found, others = sum_gradients(
            plan,
            function,
            y_weight,
            Inputs(*rows),
            parameters,
            grad,
            ctx.needs_input_grad[2],
            wants,
            wants_parameters,
        )
        return None, None, first, None, *found, *others


def _apart(values: Sequence[Any], count: int) -> tuple[Sequence[Any], Sequence[Any]]:
    """What belongs to the inputs, and what to the `count` parameters after them."""
    return values[: len(values) - count], values[len(values) - count :]


def sum_over(
    plan: Plan,
    function: str | PairFunction,
    y_weight: Tensor | None,
    inputs: Inputs,
    parameters: Sequence[Tensor | None] = (),
) -> Tensor:
    """The sums `[N]`."""
    x = inputs.x
    with torch.autocast(x.device.type, enabled=False):
        walk = _walk(plan, function, inputs)
        weight = walk.arrange_y(y_weight)

        def share(part: Walk) -> Tensor:
            total = x.new_zeros(len(x), dtype=compute_dtype(x))
            for tile in part:
                values = _value(walk, function, tile, parameters)
                if weight is None:
                    total[tile.rows] += values.sum(1)
                else:
                    total[tile.rows] += values @ weight[tile.columns]
                if tile.mirrored:
                    total[tile.columns] += values.sum(0)
            return total

        return walk.restore(added(walk.over(share)))


def sum_gradients(
    plan: Plan,
    function: str | PairFunction,
    y_weight: Tensor | None,
    inputs: Inputs,
    parameters: Sequence[Tensor | None],
    grad: Tensor,
    wants_weight: bool,
    wants: Sequence[bool],
    wants_parameters: Sequence[bool],
) -> tuple[Tensor | None, list[Tensor | None], list[Tensor | None]]:
    """Gradients of the weights, of the inputs and of the parameters."""
    walk = _walk(plan, function, inputs, base=wants_base(plan, wants))
    grad, weight = walk.arrange(grad), walk.arrange_y(y_weight)
    weighs = [Weigh(plan) for _ in range(walk.shares)]
    grad_weights = [torch.zeros_like(weight) for _ in weighs] if weight is not None and wants_weight else None
    grad_parameters = [
        torch.zeros_like(p) if p is not None and want else None
        for p, want in zip(parameters, wants_parameters, strict=True)
    ]

    def slope(part: Walk, tile: Tile) -> Tensor:
        left = grad[tile.rows]
        right = None if weight is None else weight[tile.columns]
        grad_weight = None if grad_weights is None else grad_weights[part.number]
        if not isinstance(function, str):
            return _traced_slope(plan, function, tile, parameters, left, right, grad_weight, grad_parameters)
        if grad_weight is not None:
            grad_weight[tile.columns] += left @ _value(walk, function, tile._replace(values=tile.values.clone()))
        result = power_of(walk)(tile.values) if function == "exp" else FUNCTIONS[function].slope(tile.values)
        if plan.symmetric:
            return weighs[part.number](result, left, grad[tile.columns])
        result.mul_(left[:, None])
        return result if right is None else result.mul_(right)

    found = gradients(walk, wants, slope)
    return None if grad_weights is None else walk.restore_y(added(grad_weights)), found, grad_parameters


def _walk(plan: Plan, function: str | PairFunction, inputs: Inputs, base: bool = False) -> Walk:
    if not isinstance(function, str):
        return Walk(plan.unordered, inputs, fill=None, base=base, alone=True)
    factor = power_factor(plan) if function == "exp" else 1.0
    return Walk(plan, inputs, fill=-torch.inf, factor=factor, base=base)


def _value(walk: Walk, function: str | PairFunction, tile: Tile, parameters: Sequence[Tensor | None] = ()) -> Tensor:
    if function == "exp":
        return power_of(walk)(tile.values)
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


def dense_sum(
    plan: Plan,
    function: str | PairFunction,
    y_weight: Tensor | None,
    inputs: Inputs,
    parameters: Sequence[Tensor | None],
) -> Tensor:
    """The sums `[N]` through the whole matrix, for autograd to follow."""
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
