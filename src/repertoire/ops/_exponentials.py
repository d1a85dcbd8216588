"""Log-sum-exp of each row, and exponentials of tiles."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from repertoire.ops._backward import dense_gradients, gradients, wants_base
from repertoire.ops._tiles import Inputs, Plan, compute_dtype
from repertoire.ops._walk import Tile, Walk

__all__ = [
    "LogSumExp",
    "Powers",
    "Weigh",
    "add_powers",
    "dense_logsumexp",
    "joined",
    "logsumexp",
    "logsumexp_gradients",
    "power_factor",
    "power_of",
]


class LogSumExp(torch.autograd.Function):
    """Log-sum-exp of each row. Keeps one number a row."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, bounded: bool, *tensors: Tensor | None) -> Tensor:
        lse = logsumexp(plan, bounded, Inputs(*tensors))  # type: ignore[arg-type]
        ctx.save_for_backward(lse, *tensors)
        ctx.plan, ctx.bounded = plan, bounded
        return lse

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        lse, *tensors = ctx.saved_tensors
        plan: Plan = ctx.plan
        if torch.is_grad_enabled():
            return None, None, *dense_gradients(tensors, grad, lambda *given: dense_logsumexp(plan, Inputs(*given)))
        return (
            None,
            None,
            *logsumexp_gradients(plan, ctx.bounded, Inputs(*tensors), lse, grad, ctx.needs_input_grad[2:]),
        )


def logsumexp(plan: Plan, bounded: bool, inputs: Inputs) -> Tensor:
    """Log-sum-exp `[N]`, without a running maximum if the values are bounded."""
    x = inputs.x
    if (kernels := _kernels(plan, inputs)) is not None:
        return kernels.logsumexp(plan, inputs)
    with torch.autocast(x.device.type, enabled=False):
        walk = Walk(plan, inputs, fill=-torch.inf, factor=power_factor(plan))
        power = power_of(walk)

        def share(part: Walk) -> Powers:
            # Unbounded sums are kept as a largest value and a sum relative to it.
            total = x.new_zeros(len(x), dtype=compute_dtype(x))
            largest = None if bounded else torch.full_like(total, -torch.inf)
            for tile in part:
                if largest is None:
                    power(tile.values)
                    total[tile.rows] += tile.values.sum(1)
                    if tile.mirrored:
                        total[tile.columns] += tile.values.sum(0)
                    continue
                if tile.mirrored:
                    add_powers(power, total, largest, tile.columns, tile.values.clone(), 0)
                add_powers(power, total, largest, tile.rows, tile.values, 1)
            return Powers(total, largest)

        total, largest = joined(power, walk.over(share))
        lse = total.log_()
        if largest is not None:
            lse.add_(largest, alpha=1 / walk.factor)
        return walk.restore(lse)


def logsumexp_gradients(
    plan: Plan, bounded: bool, inputs: Inputs, lse: Tensor, grad: Tensor, wants: Sequence[bool]
) -> list[Tensor | None]:
    """Gradients of the inputs. The log-sum-exp may be that over more pairs than those of the inputs."""
    if (kernels := _kernels(plan, inputs)) is not None:
        return [*kernels.gradients(plan, inputs, lse, grad, wants[0], wants[1]), None, None, None, None]
    walk = Walk(plan, inputs, fill=-torch.inf, factor=power_factor(plan), base=wants_base(plan, wants))
    power, weighs = power_of(walk), [Weigh(plan) for _ in range(walk.shares)]
    # A row without pairs has lse = -inf; +inf in its place makes its softmax zero instead of not a number.
    shift = walk.arrange(lse.masked_fill(lse == -torch.inf, torch.inf))
    weight = walk.arrange(grad)
    if bounded:
        weight = weight * torch.exp(-shift)
    shift = shift * walk.factor

    def slope(part: Walk, tile: Tile) -> Tensor:
        values = tile.values
        if bounded:
            # exp(s_ij) stands in the sums of row i and, in one set, of row j: the weights of both apply.
            return weighs[part.number](
                power(values), weight[tile.rows], weight[tile.columns if plan.symmetric else tile.rows]
            )
        if not plan.symmetric:
            return power(values.sub_(shift[tile.rows, None])).mul_(weight[tile.rows, None])
        across = power(values - shift[tile.columns]).mul_(weight[tile.columns])
        return power(values.sub_(shift[tile.rows, None])).mul_(weight[tile.rows, None]).add_(across)

    return gradients(walk, wants, slope)


def _kernels(plan: Plan, inputs: Inputs) -> ModuleType | None:
    """The kernels for accelerators, where there is one, Triton is installed, and they do what is asked."""
    if inputs.x.device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return None
    kernels = importlib.import_module("repertoire.ops._triton_pairs")
    return kernels if kernels.fits(plan, inputs) else None


def power_factor(plan: Plan) -> float:
    """Factor of values whose exponential is wanted.

    Powers of two take a third of the time of powers of e on a CPU, and the factor costs nothing: it is part of the
    scale. But a mask is to see the values as they are.
    """
    return math.log2(math.e) if plan.mask is None else 1.0


def power_of(walk: Walk) -> Callable[[Tensor], Tensor]:
    """The function in place that is the exponential of what was multiplied by that."""
    return Tensor.exp_ if walk.factor == 1 else Tensor.exp2_


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


class Powers(NamedTuple):
    """Sums `[N]` of powers; relative to the power of a largest value `[N]`, if there is one."""

    total: Tensor
    largest: Tensor | None


def joined(power: Callable[[Tensor], Tensor], found: Sequence[Powers]) -> Powers:
    """The sums over all shares, added in order; overwrites those of the first."""
    (total, largest), *rest = found
    for more, most in rest:
        if largest is None or most is None:
            total.add_(more)
            continue
        after = torch.maximum(largest, most)
        # Zero in place of -inf, as above.
        origin = after.masked_fill(after == -torch.inf, 0.0)
        total = total * power(largest - origin) + more * power(most - origin)
        largest = after
    return Powers(total, largest)


class Weigh:
    """Multiplies the entry (i, j) of a tile by the weight of row i, plus that of column j where a pair stands for both.

    Keeps the memory of the sums of weights from tile to tile: to ask for a tile's worth each time costs as much as the
    multiplication.
    """

    def __init__(self, plan: Plan) -> None:
        self.both = plan.symmetric
        self._buffer: Tensor | None = None

    def __call__(self, values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        if not self.both:
            return values.mul_(rows[:, None])
        if self._buffer is None or self._buffer.numel() < values.numel():
            self._buffer = torch.empty_like(values)
        sums = self._buffer.view(-1)[: values.numel()].view(values.shape)
        return values.mul_(torch.add(rows[:, None], columns, out=sums))


def dense_logsumexp(plan: Plan, inputs: Inputs) -> Tensor:
    """Log-sum-exp `[N]` through the whole matrix, for autograd to follow."""
    values, keep = plan.dense(inputs)
    if keep is None:
        return values.logsumexp(1) if values.shape[1] else values.sum(1) - torch.inf
    empty = ~keep.any(1)
    # Zeros in a row without pairs, so that its gradient is zero instead of not a number.
    values = values.masked_fill(~keep, -torch.inf).masked_fill(empty[:, None], 0.0)
    return values.logsumexp(1).masked_fill(empty, -torch.inf)
