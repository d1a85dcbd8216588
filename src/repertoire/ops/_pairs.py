r"""Reductions over all pairs of rows, tile by tile, without a matrix of pairs.

Contrastive losses reduce the similarities :math:`s_{ij} = \alpha\,x_i \cdot y_j` of N rows with M rows to one number a
row. Written with an N x M matrix that takes O(NM) memory and is bound by moving the matrix about. Here a tile of
similarities is made, reduced and forgotten while it is in the cache; the backward pass keeps one number a row and makes
the tiles again.

What bounds it. With T = 2NMd the operations of one matrix product of all pairs:

===================  ===================  ==============================  =====================
case                 matrix products      exponentials                    memory over in- and outputs
===================  ===================  ==============================  =====================
two sets             T forward,           NM forward, NM backward         one tile, O(N)
                     3T backward
one set, bounded     T/2 forward,         N²/2 forward, N²/2 backward     two tiles, O(N)
                     3T/2 backward
===================  ===================  ==============================  =====================

The dense form spends the same 4T (3T for one set), and moves the matrix between memory and core about ten times more.
At d = 128 the products take more than three quarters of the time on a CPU, so this is bound by the matrix units.

A tile goes through one product, one exponential in place and one sum. The exponential needs no running maximum when
the similarities are bounded: with \|s\| <= 64, exp(s) lies between 1e-28 and 1e28, and neither it nor the sum of a
billion of them leaves the range of float32. Cosines divided by a temperature of 1/64 or more are bounded so. The bound
also makes a pair's exponential the same for both of its rows, which is why one set of rows does half of the work only
when it is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from repertoire.errors import ShapeError

__all__ = ["LARGEST_BOUND", "Pairs", "pair_logsumexp"]

Pairs = Literal["all", "same", "different"]

#: |s| up to which exp(s), and a billion times it, are normal numbers in float32.
LARGEST_BOUND = 64.0

#: Bytes of a tile. On a CPU a tile and the rows that made it stay in the second-level cache of a core (512 x 512 in
#: float32 was the fastest of 256² to 2048²); an accelerator needs large tiles to be busy.
_TILE_BYTES = {"cpu": 2**20}
_TILE_BYTES_ELSEWHERE = 2**26


@dataclass(frozen=True)
class _Plan:
    """Which pairs count, how similar they are, and how they are cut into tiles. The same in forward and backward."""

    scale: float
    bounded: bool
    exclude_self: bool
    pairs: Pairs
    groups: Tensor | None
    y_groups: Tensor | None
    tile: int

    def similarities(self, x: Tensor, y: Tensor, rows: slice, columns: slice, buffer: Tensor) -> Tensor:
        """The tile of similarities, written into the buffer; -inf where a pair does not count."""
        left, right = x[rows], y[columns]
        tile = buffer[: len(left) * len(right)].view(len(left), len(right))
        torch.addmm(tile, left, right.T, beta=0, alpha=self.scale, out=tile)
        if self.groups is not None and self.y_groups is not None:
            equal = self.groups[rows, None] == self.y_groups[columns]
            tile.masked_fill_(equal if self.pairs == "different" else ~equal, -torch.inf)
        if self.exclude_self and rows == columns:
            tile.fill_diagonal_(-torch.inf)
        return tile

    def slices(self, count: int, start: int = 0) -> Iterator[slice]:
        for first in range(start, count, self.tile):
            yield slice(first, min(first + self.tile, count))

    def buffer(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_empty(min(self.tile, len(x)) * min(self.tile, len(y)))


def pair_logsumexp(
    x: Tensor,
    y: Tensor | None = None,
    *,
    scale: float | Tensor = 1.0,
    bound: float | None = None,
    exclude_self: bool = False,
    pairs: Pairs = "all",
    groups: Tensor | None = None,
    y_groups: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    r"""Log-sum-exp of each row's similarities with all rows, without the matrix of similarities.

    .. math:: \mathrm{lse}_i = \log \sum_{j \in A(i)} \exp(\alpha\, x_i \cdot y_j)

    Args:
        x: float `[N, d]`.
        y: float `[M, d]` of the same dtype and device; x itself if None.
        scale: alpha, positive where y is None; a number, or a tensor without dimensions that may need a gradient. For
            cosines over a temperature give unit rows and one over the temperature.
        bound: a promise that no \|alpha x_i . y_j\| exceeds this; up to 64 it saves the running maximum, and half of
            the work where y is None. A broken promise gives infinities.
        exclude_self: leave the pair (i, i) out; only where y is None.
        pairs: "all" (default), or only those of the "same" or of "different" groups.
        groups: int64 `[N]`, the group of each row of x, if `pairs` is not "all".
        y_groups: int64 `[M]`, the group of each row of y; not given where y is None.
        tile: rows and columns of a tile; chosen for the device if None.

    Returns:
        float `[N]`: float32 for half-precision input, which is summed in float32; -inf, with a zero gradient, for a row
        without pairs.

    Raises:
        ShapeError: shapes, dtypes or arguments that do not fit each other.

    Example:
        >>> import torch
        >>> from repertoire.ops import pair_logsumexp
        >>> x = torch.eye(3)
        >>> pair_logsumexp(x, scale=10.0, bound=10.0, exclude_self=True)  # log(1 + 1)
        tensor([0.6931, 0.6931, 0.6931])
    """
    _check(x, y, exclude_self, pairs, groups, y_groups)
    if x.dtype in (torch.float16, torch.bfloat16):
        x, y = x.float(), None if y is None else y.float()
    if isinstance(scale, Tensor):
        # Scaled beforehand, autograd gives the scale its gradient. Half on each side keeps one set symmetric.
        scale = scale.to(x.dtype)
        x = x * (scale if y is not None else scale.sqrt())
        scale = 1.0
    if tile is None:
        tile = max(1, int((_TILE_BYTES.get(x.device.type, _TILE_BYTES_ELSEWHERE) / x.element_size()) ** 0.5))
    bounded = bound is not None and bound <= LARGEST_BOUND
    plan = _Plan(scale, bounded, exclude_self, pairs, groups, groups if y is None else y_groups, tile)
    if y is None and bounded:
        return _OneSet.apply(x, plan)
    return _TwoSets.apply(x, x if y is None else y, plan)


def _check(
    x: Tensor, y: Tensor | None, exclude_self: bool, pairs: Pairs, groups: Tensor | None, y_groups: Tensor | None
) -> None:
    if x.ndim != 2 or not x.is_floating_point():
        raise ShapeError(f"x must be a floating point [N, d], found {x.dtype} {list(x.shape)}")
    if y is not None and (y.ndim != 2 or y.shape[1] != x.shape[1] or y.dtype != x.dtype):
        raise ShapeError(f"y must be {x.dtype} [M, {x.shape[1]}] like x, found {y.dtype} {list(y.shape)}")
    if exclude_self and y is not None:
        raise ShapeError("exclude_self is for pairs within x; leave y out, or give groups and pairs='different'")
    if pairs not in ("all", "same", "different"):
        raise ShapeError(f"pairs must be 'all', 'same' or 'different', found {pairs!r}")
    if (groups is None) != (pairs == "all"):
        raise ShapeError(f"groups and pairs go together: pairs is {pairs!r} and groups is {type(groups).__name__}")
    if (y_groups is None) != (groups is None or y is None):
        raise ShapeError("y_groups must be given if, and only if, y and groups are")
    for name, values, rows in (("groups", groups, len(x)), ("y_groups", y_groups, 0 if y is None else len(y))):
        if values is not None and values.shape != (rows,):
            raise ShapeError(f"{name} must be [{rows}], one for each row, found {list(values.shape)}")


class _TwoSets(torch.autograd.Function):
    """All pairs of x with y, every tile once in each direction."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, plan: _Plan) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            total = x.new_full((len(x),), 0.0 if plan.bounded else -torch.inf)
            buffer = plan.buffer(x, y)
            for rows in plan.slices(len(x)):
                for columns in plan.slices(len(y)):
                    tile = plan.similarities(x, y, rows, columns, buffer)
                    if plan.bounded:
                        total[rows] += tile.exp_().sum(1)
                    else:
                        total[rows] = torch.logaddexp(total[rows], tile.logsumexp(1))
            lse = total.log_() if plan.bounded else total
        ctx.save_for_backward(x, y, lse)
        ctx.plan = plan
        return lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, y, lse = ctx.saved_tensors
        plan: _Plan = ctx.plan
        wants_x, wants_y, _ = ctx.needs_input_grad
        with torch.autocast(x.device.type, enabled=False):
            shift, weight = _softmax_terms(lse, grad, plan.bounded)
            grad_x = torch.zeros_like(x) if wants_x else None
            grad_y = torch.zeros_like(y) if wants_y else None
            buffer = plan.buffer(x, y)
            for rows in plan.slices(len(x)):
                weighted = x[rows] * weight[rows, None]
                for columns in plan.slices(len(y)):
                    tile = plan.similarities(x, y, rows, columns, buffer)
                    if not plan.bounded:
                        tile.sub_(shift[rows, None])
                    tile.exp_()
                    if grad_x is not None:
                        grad_x[rows].addmm_(tile, y[columns])
                    if grad_y is not None:
                        grad_y[columns].addmm_(tile.T, weighted, alpha=plan.scale)
            if grad_x is not None:
                grad_x.mul_(weight[:, None]).mul_(plan.scale)
        return grad_x, grad_y, None


class _OneSet(torch.autograd.Function):
    """Pairs within x when similarities are bounded: a tile off the diagonal serves its rows and its columns."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: _Plan) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            total = x.new_zeros(len(x))
            buffer = plan.buffer(x, x)
            for rows in plan.slices(len(x)):
                for columns in plan.slices(len(x), rows.start):
                    tile = plan.similarities(x, x, rows, columns, buffer).exp_()
                    total[rows] += tile.sum(1)
                    if columns != rows:
                        total[columns] += tile.sum(0)
            lse = total.log_()
        ctx.save_for_backward(x, lse)
        ctx.plan = plan
        return lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, lse = ctx.saved_tensors
        plan: _Plan = ctx.plan
        with torch.autocast(x.device.type, enabled=False):
            _, weight = _softmax_terms(lse, grad, bounded=True)
            grad_x = torch.zeros_like(x)
            buffer, weights = plan.buffer(x, x), plan.buffer(x, x)
            for rows in plan.slices(len(x)):
                for columns in plan.slices(len(x), rows.start):
                    tile = plan.similarities(x, x, rows, columns, buffer).exp_()
                    # exp(s_ij) stands in the sums of row i and of row j: the weights of both apply.
                    both = weights[: tile.numel()].view(tile.shape)
                    tile.mul_(torch.add(weight[rows, None], weight[columns], out=both))
                    grad_x[rows].addmm_(tile, x[columns])
                    if columns != rows:
                        grad_x[columns].addmm_(tile.T, x[rows])
            grad_x.mul_(plan.scale)
        return grad_x, None


def _softmax_terms(lse: Tensor, grad: Tensor, bounded: bool) -> tuple[Tensor, Tensor]:
    """What to subtract before the exponential and what to multiply by after it, for grad_i * softmax(s_i)."""
    # A row without pairs has lse = -inf; +inf in its place makes its softmax zero instead of not a number.
    shift = lse.masked_fill(lse == -torch.inf, torch.inf)
    return shift, grad * torch.exp(-shift) if bounded else grad
