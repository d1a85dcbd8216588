"""Any function of all similarities of a row, a strip of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.ops import _tiles
from repertoire.ops._backward import dense_gradients, gradients, wants_base
from repertoire.ops._pairs import prepare
from repertoire.ops._tiles import Inputs, Plan, Similarity, compute_dtype
from repertoire.ops._transforms import transformed
from repertoire.ops._walk import Tile, Walk

__all__ = ["pair_rows", "tile_size"]

#: Numbers in a strip: with what a function makes of them, some dozens of megabytes.
_STRIP = 2**21


def pair_rows(
    x: Tensor,
    y: Tensor | None,
    function: Callable[..., Tensor],
    *,
    similarity: Similarity = "dot",
    scale: float | Tensor = 1.0,
    parameters: tuple[Tensor, ...] = (),
    strip: int | None = None,
) -> Tensor:
    """A function of all similarities of each row, such as one that sorts them, without the matrix of similarities.

    A strip of rows is made, handed to the function and forgotten; the backward pass makes it again and lets autograd
    follow the function within the strip. For what is a sum, a maximum or a count over pairs, the other reductions are
    faster and need less memory.

    Args:
        x: float `[N, d]`.
        y: float `[M, d]` of the same dtype and device; x itself if None.
        function: `function(strip, rows, *parameters)` is given the scaled similarities `[n, M]` of x[rows], for a
            slice, with all rows of y, and gives a tensor whose first dimension is n, the others the same for all rows.
        similarity: "dot" (default), "cosine", "euclidean" or "sqeuclidean".
        scale: a number, or a tensor without dimensions or `[N]` that may need a gradient.
        parameters: tensors that the function needs and that may need a gradient.
        strip: rows of a strip; chosen by M if None. Memory is several times strip x M.

    Returns:
        float `[N, ...]`, what the function gave; float32 for half-precision input. Differentiable twice if the function
        is, the second time through the N x M matrix.

    Raises:
        ShapeError: shapes, dtypes or arguments that do not fit each other.

    Example:
        >>> import torch
        >>> from repertoire.ops import pair_rows
        >>> x = torch.tensor([[0.0], [1.0], [3.0]])
        >>> pair_rows(x, None, lambda strip, rows: strip.median(1).values, similarity="euclidean")
        tensor([1., 1., 2.])
    """
    plan, inputs = prepare(x, y, similarity, scale, None, None, symmetric=False, which={})
    others = len(inputs.other)
    if strip is not None and strip < 1:
        raise ShapeError(f"strip must be 1 or more, found {strip}")
    plan = replace(plan, tile=max(others, 1), tall=strip or max(1, _STRIP // max(others, 1)))
    if transformed():
        values, _ = plan.dense(inputs)
        return _call(function, values, slice(0, len(inputs.x)), parameters)
    return _Rows.apply(plan, function, len(parameters), *inputs, *parameters)


@contextmanager
def tile_size(numbers: int) -> Iterator[None]:
    """Limits how many similarities all reductions over pairs on a processor hold at once, while it lasts.

    The default is made for the cache of a processor. Fewer take longer and less memory, and let a test of a loss cross
    the borders of tiles with few rows. It holds for the whole process, and changes nothing on a GPU.

    Args:
        numbers: float64 numbers of a tile or a strip, 1 or more; twice as many of float32 fit into a tile.

    Raises:
        ShapeError: fewer than 1.

    Example:
        >>> import torch
        >>> from repertoire.losses import SupCon
        >>> from repertoire.ops import tile_size
        >>> x, labels = torch.randn(9, 4), torch.arange(9) % 3
        >>> whole = SupCon()(x, labels)
        >>> with tile_size(16):
        ...     tiled = SupCon()(x, labels)
        >>> torch.allclose(whole, tiled)
        True
    """
    global _STRIP
    if numbers < 1:
        raise ShapeError(f"a tile holds 1 number or more, found {numbers}")
    strip, tiles = _STRIP, dict(_tiles._TILE_BYTES)
    # Of float64, which is the widest.
    _STRIP = numbers
    _tiles._TILE_BYTES.update(cpu=8 * numbers)
    try:
        yield
    finally:
        _STRIP = strip
        _tiles._TILE_BYTES.update(tiles)


class _Rows(torch.autograd.Function):
    """Keeps nothing but its inputs."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, function: Callable[..., Tensor], count: int, *tensors: Tensor | None) -> Tensor:
        inputs, parameters = Inputs(*tensors[: len(tensors) - count]), tensors[len(tensors) - count :]  # type: ignore[arg-type]
        x, others = inputs.x, len(inputs.other)
        found = []
        with torch.autocast(x.device.type, enabled=False):
            for tile in Walk(plan, inputs, fill=None, alone=True):
                found.append(_call(function, tile.values, tile.rows, parameters))
            if not found:
                # Of no rows, or of no others: the function says what its results look like.
                empty = x.new_zeros(len(x), others, dtype=compute_dtype(x))
                found.append(_call(function, empty, slice(0, len(x)), parameters))
        ctx.save_for_backward(*tensors)
        ctx.plan, ctx.function, ctx.count = plan, function, count
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tensors, plan, function, count = ctx.saved_tensors, ctx.plan, ctx.function, ctx.count
        if torch.is_grad_enabled():

            def dense(*given: Tensor | None) -> Tensor:
                inputs = Inputs(*given[: len(given) - count])  # type: ignore[arg-type]
                values, _ = plan.dense(inputs)
                return _call(function, values, slice(0, len(inputs.x)), given[len(given) - count :])

            return None, None, None, *dense_gradients(tensors, grad, dense)
        inputs, parameters = Inputs(*tensors[: len(tensors) - count]), tensors[len(tensors) - count :]
        wants = ctx.needs_input_grad[3 : len(ctx.needs_input_grad) - count]
        sums = [
            torch.zeros_like(p) if want else None
            for p, want in zip(parameters, ctx.needs_input_grad[len(ctx.needs_input_grad) - count :], strict=True)
        ]

        def slope(_: Walk, tile: Tile) -> Tensor:
            with torch.enable_grad():
                values = tile.values.detach().requires_grad_()
                given = [p.detach().requires_grad_(want is not None) for p, want in zip(parameters, sums, strict=True)]
                result = _call(function, values, tile.rows, given)
            if not result.requires_grad:
                return torch.zeros_like(values)
            wanted = [values, *(p for p in given if p.requires_grad)]
            first, *rest = torch.autograd.grad(result, wanted, grad[tile.rows], allow_unused=True)
            for total, more in zip([s for s in sums if s is not None], rest, strict=True):
                if more is not None:
                    total += more
            return torch.zeros_like(values) if first is None else first

        walk = Walk(plan, inputs, fill=None, base=wants_base(plan, wants), alone=True)
        found = gradients(walk, wants, slope)
        return None, None, None, *found, *sums


def _call(function: Callable[..., Tensor], strip: Tensor, rows: slice, parameters: Any) -> Tensor:
    result = function(strip, rows, *parameters)
    if result.ndim < 1 or len(result) != len(strip):
        raise ShapeError(
            f"function must give a tensor with {len(strip)} rows for this strip {list(strip.shape)}, "
            f"found {list(result.shape)}"
        )
    return result
