"""Rows of unit length, and sums of rows by class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.ops._tiles import inverse_lengths
from repertoire.ops._transforms import transformed
from repertoire.ops._workers import by_rows, worker_count

__all__ = ["class_index", "class_sums", "unit_rows"]


def unit_rows(x: Tensor) -> Tensor:
    """Rows divided by their Euclidean length; a zero row stays zero and gets a zero gradient.

    Args:
        x: float `[N, d]`.

    Returns:
        float `[N, d]`; float32 for half-precision input.

    Raises:
        ShapeError: x is not a floating point matrix.

    Example:
        >>> import torch
        >>> from repertoire.ops import unit_rows
        >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    if x.ndim != 2 or not x.is_floating_point():
        raise ShapeError(f"rows must be a floating point [N, d], found {x.dtype} {list(x.shape)}")
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if transformed():
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        zero = length < torch.finfo(x.dtype).tiny
        return x / length.where(~zero, 1.0) * ~zero
    z, _ = _UnitRows.apply(x)
    return z


class _UnitRows(torch.autograd.Function):
    """Keeps its results only, and needs no temporary of that size backward where autograd would need four.

    The inverse lengths are a result too, so that a gradient of the gradient finds its way through them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        # No slices where there is one share: a trace would be one of so many rows.
        if worker_count(x) == 1:
            inverse = inverse_lengths(x)
            z = x * inverse
        else:
            z, inverse = torch.empty_like(x), x.new_empty(len(x), 1)

            def share(rows: slice) -> None:
                inverse[rows] = inverse_lengths(x[rows])
                torch.mul(x[rows], inverse[rows], out=z[rows])

            by_rows(share, x)
        ctx.save_for_backward(z, inverse)
        ctx.set_materialize_grads(False)
        return z, inverse

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_inverse: Tensor | None) -> Tensor | None:
        z, inverse = ctx.saved_tensors
        if torch.is_grad_enabled() or grad_inverse is not None:
            result = torch.zeros_like(z) if grad is None else (grad - z * (z * grad).sum(1, keepdim=True)) * inverse
            return result if grad_inverse is None else result - grad_inverse * inverse.square() * z
        if grad is None:
            return None
        result = torch.empty_like(z)

        def share(rows: slice) -> None:
            along, mine = result[rows], grad[rows]
            torch.mul(z[rows], mine, out=along)
            torch.mul(z[rows], along.sum(1, keepdim=True), out=along)
            torch.sub(mine, along, out=along).mul_(inverse[rows])

        by_rows(share, z, grad)
        return result


def class_index(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Labels as indices 0..K-1 in sorted order, and how many rows have each.

    On an accelerator, and in compiled code, the counts are padded with zeros to `[N]`: to ask for K would wait
    for the device, or break the graph.

    Args:
        labels: integers `[N]`, of any value.

    Returns:
        int64 `[N]`, the index of each row's class; int64 `[K]`, or `[N]` with zeros at the end, the rows of each class.

    Example:
        >>> import torch
        >>> from repertoire.ops import class_index
        >>> class_index(torch.tensor([7, -1, 7]))
        (tensor([1, 0, 1]), tensor([1, 2]))
    """
    ordered, order = labels.sort()
    rank = torch.zeros_like(ordered, dtype=torch.int64)
    torch.cumsum(ordered[1:] != ordered[:-1], 0, out=rank[1:])
    index = torch.empty_like(rank).scatter_(0, order, rank)
    seen = len(rank) and rank.device.type == "cpu" and not torch.compiler.is_compiling()
    size = int(rank[-1]) + 1 if seen else len(rank)
    counts = torch.zeros(size, dtype=torch.int64, device=labels.device).scatter_add_(0, index, torch.ones_like(index))
    return index, counts


def class_sums(x: Tensor, index: Tensor, classes: int) -> Tensor:
    """Sum of the rows of each class.

    Args:
        x: float `[N, d]`.
        index: int64 `[N]` in 0..K-1, as `class_index` gives.
        classes: K.

    Returns:
        float `[K, d]`.

    Example:
        >>> import torch
        >>> from repertoire.ops import class_sums
        >>> class_sums(torch.eye(3), torch.tensor([0, 1, 0]), 2)
        tensor([[1., 0., 1.],
                [0., 1., 0.]])
    """
    return x.new_zeros(classes, x.shape[1]).index_add(0, index, x)
