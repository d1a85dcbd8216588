"""The walk over the tiles of a plan."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeVar, overload

import torch
from torch import Tensor

from repertoire.ops._tiles import Inputs, Plan, compute_dtype, leave_out
from repertoire.ops._workers import at_once, worker_count

__all__ = ["Tile", "Walk", "added"]

T = TypeVar("T")


class Tile(NamedTuple):
    """One tile: where it lies, the rows that made it, and its values."""

    rows: slice
    columns: slice
    left: Tensor
    right: Tensor
    values: Tensor
    """Scaled similarities; the fill value where a pair does not count."""
    base: Tensor | None
    """Similarities before scale and bias, where they were asked for."""
    mirrored: bool
    """Whether the tile stands for its transpose too."""


class Walk:
    """The tiles of a plan, one after the other, in memory that the next one overwrites.

    Rows may be walked in an order of its own: what belongs to a row goes in through `arrange` and comes out through
    `restore`.

    A walk can be shared out: :meth:`over` hands shares of its rows to workers, each of which is a walk too. Rows belong
    to one share alone, columns to all of them: what is summed over columns needs a sum for each share.

    Attributes:
        shares: how many shares `over` makes.
        number: which of them this one is; 0 for the whole.

    Args:
        plan: what to walk.
        inputs: the rows, and what belongs to them.
        fill: put where a pair does not count; nothing is left out if None.
        factor: multiplies all values: log2(e) for those who want powers of two, which are three times cheaper.
        base: whether the similarities before scale and bias are wanted.
        alone: not to be shared out: for functions that are somebody else's and may not be called side by side.
    """

    def __init__(
        self,
        plan: Plan,
        inputs: Inputs,
        *,
        fill: float | None,
        factor: float = 1.0,
        base: bool = False,
        alone: bool = False,
    ) -> None:
        self.plan = plan
        self.inputs = inputs
        self.fill = fill
        self.factor = factor
        self.base = base
        # Rows that are walked in another order are put in that order once: to gather those of each tile takes as long
        # as a tenth of its product.
        self._x = self.arrange(inputs.x)
        self._y = self._x if inputs.y is None else self.arrange_y(inputs.y)
        self._x_factor, self._y_factor = self.arrange(inputs.x_factor), self.arrange_y(inputs.other_factor)
        self._scale = plan.scale * factor
        self._row_scale = self.arrange(inputs.row_scale)
        self._bias, self._y_bias = self.arrange(inputs.bias), self.arrange_y(inputs.y_bias)
        if factor != 1:
            self._bias = None if self._bias is None else self._bias * factor
            self._y_bias = None if self._y_bias is None else self._y_bias * factor
        self._squares: Tensor | None = None
        self._y_squares: Tensor | None = None
        ordered = plan.order is not None
        self._groups, self._y_groups = self.arrange(plan.ranks), self.arrange_y(plan.y_ranks)
        self._limits: Tensor | None = None
        self._step = plan.tall
        self._lows = _ends(self._groups, self._step) if ordered else None
        self._y_lows = _ends(self._y_groups, plan.tile) if ordered else None
        self._exclude = self.arrange(plan.exclude)
        if self._exclude is not None and plan.y_order is not None:
            # Position of each row of y in the walk; one more at the end for -1.
            place = torch.full((len(plan.y_order) + 1,), -1, dtype=torch.int64, device=plan.y_order.device)
            place[plan.y_order] = torch.arange(len(plan.y_order), device=plan.y_order.device)
            inside = (self._exclude >= 0) & (self._exclude < len(plan.y_order))
            self._exclude = place[self._exclude.where(inside, len(plan.y_order))]
        strips = -(-len(inputs.x) // self._step) if self._step else 0
        self.shares = 1
        if strips > 1 and not alone and plan.mask is None:
            workers = worker_count(*inputs)
            # With fewer than two strips each, most of the workers wait for the last.
            self.shares = workers if strips >= 2 * workers else 1
        self.number, self._whole = 0, True

    def over(self, work: Callable[[Walk], T]) -> list[T]:
        """Results of `work` for each share of this walk, in order: one share a worker, side by side.

        Which strips of rows a share has depends on their number and that of the shares alone, so that sums are made in
        the same order each time. Of a set with itself the first strip has the most tiles and the last has one; taken to
        and fro, all shares have as many.
        """
        if self.shares == 1:
            return [work(self)]
        self._prepare_squares()
        parts = []
        for number in range(self.shares):
            part = copy.copy(self)
            part.number, part._whole, part._limits = number, False, None
            parts.append(part)
        return at_once([lambda part=part: work(part) for part in parts])  # type: ignore[misc]

    def _strips(self) -> Iterator[slice]:
        """The strips of rows of this share."""
        for place, rows in enumerate(self.plan.slices(len(self.inputs.x), step=self._step)):
            turn, at = divmod(place, self.shares)
            if self._whole or (at if turn % 2 == 0 else self.shares - 1 - at) == self.number:
                yield rows

    @overload
    def arrange(self, values: Tensor) -> Tensor: ...

    @overload
    def arrange(self, values: None) -> None: ...

    @overload
    def arrange(self, values: Tensor | None) -> Tensor | None: ...

    def arrange(self, values: Tensor | None) -> Tensor | None:
        """Brings what belongs to the rows of x into the order of the walk."""
        return values if values is None or self.plan.order is None else values[self.plan.order]

    @overload
    def arrange_y(self, values: Tensor) -> Tensor: ...

    @overload
    def arrange_y(self, values: None) -> None: ...

    @overload
    def arrange_y(self, values: Tensor | None) -> Tensor | None: ...

    def arrange_y(self, values: Tensor | None) -> Tensor | None:
        """Brings what belongs to the rows of y into the order of the walk."""
        return values if values is None or self.plan.y_order is None else values[self.plan.y_order]

    def restore(self, values: Tensor) -> Tensor:
        """Brings what was found for the rows of x into the order in which they were given."""
        return _restored(values, self.plan.order)

    def restore_y(self, values: Tensor) -> Tensor:
        """Brings what was found for the rows of y into the order in which they were given."""
        return _restored(values, self.plan.y_order)

    def left(self, rows: slice | Tensor) -> Tensor:
        """Rows of x, counted in the order of the walk."""
        return self.plan.rows(self._x, self._x_factor, rows)

    def right(self, columns: slice) -> Tensor:
        """Rows of y, counted in the order of the walk."""
        return self._y[columns] if self.plan.y_ready else self.plan.rows(self._y, self._y_factor, columns)

    def __iter__(self) -> Iterator[Tile]:
        plan, x, y = self.plan, self.inputs.x, self.inputs.other
        dtype = compute_dtype(x)
        size = min(self._step, len(x)) * min(plan.tile, len(y))
        buffer = x.new_empty(size, dtype=dtype)
        spare = x.new_empty(size, dtype=dtype) if self.base else None
        for rows in self._strips():
            left = self.left(rows)
            for columns in plan.slices(len(y), rows.start if plan.symmetric else 0):
                agreement = self._agreement(rows, columns)
                if self.fill is not None and agreement == "none":
                    continue
                same = self.inputs.y is None and rows == columns
                right = left if same else self.right(columns)
                values = buffer[: len(left) * len(right)].view(len(left), len(right))
                kept = None if spare is None else spare[: values.numel()].view(values.shape)
                self.similarities(rows, columns, left, right, values, kept)
                if self.fill is not None:
                    self.leave_out(values, rows, columns, whole=agreement == "all")
                yield Tile(rows, columns, left, right, values, kept, plan.symmetric and rows != columns)

    def similarities(
        self,
        rows: slice | Tensor,
        columns: slice,
        left: Tensor,
        right: Tensor,
        values: Tensor,
        kept: Tensor | None = None,
    ) -> None:
        """Writes a tile of scaled similarities."""
        factor = self._scale
        self._prepare_squares()
        if self._squares is None or self._y_squares is None:
            torch.addmm(values, left, right.T, beta=0, alpha=1.0 if kept is not None else factor, out=values)
            if kept is not None:
                kept.copy_(values)
                values.mul_(factor)
        else:
            torch.addmm(self._y_squares[columns], left, right.T, alpha=-2, out=values)
            values.add_(self._squares[rows, None]).clamp_min_(0)
            if self.inputs.y is None and isinstance(rows, slice) and rows == columns:
                values.diagonal().fill_(0)
            if self.plan.similarity == "euclidean":
                values.sqrt_()
            if kept is not None:
                kept.copy_(values)
            if factor != 1:
                values.mul_(factor)
        if self._row_scale is not None:
            values.mul_(self._row_scale[rows, None])
        if self._bias is not None:
            values.add_(self._bias[rows, None])
        if self._y_bias is not None:
            values.add_(self._y_bias[columns])

    def _prepare_squares(self) -> None:
        if self.plan.distances and self._squares is None:
            self._squares = self.plan.squared_lengths(self._x, self._x_factor)
            one = self.inputs.y is None
            self._y_squares = self._squares if one else self.plan.squared_lengths(self._y, self._y_factor)

    def leave_out(self, values: Tensor, rows: slice | Tensor, columns: slice, whole: bool = False) -> None:
        """Fills a tile where a pair does not count; `whole` says that none is left out because of its groups."""
        if self.fill is None:
            return
        # The mask of one's own sees the values before anything is left out.
        marks = None if self.plan.mask is None else values.clone()
        if not whole and self._groups is not None and self._y_groups is not None:
            self._leave_out_groups(values, self._groups[rows, None], self._y_groups[columns], self.fill)
        leave_out(
            values,
            values if marks is None else marks,
            rows,
            columns,
            self.fill,
            mask=self.plan.mask,
            exclude=self._exclude,
            exclude_self=self.plan.exclude_self,
        )

    def _leave_out_groups(self, values: Tensor, groups: Tensor, y_groups: Tensor, fill: float) -> None:
        """Cuts values off at plus and minus infinity: a fifth of the time of a comparison to bool and a masked fill."""
        if self._limits is None or self._limits.numel() < values.numel():
            self._limits = torch.empty_like(values)
        limits = self._limits.view(-1)[: values.numel()].view(values.shape)
        torch.ne(groups, y_groups, out=limits)
        limits.sub_(0.5).mul_(-fill if self.plan.pairs == "different" else fill)
        if fill < 0:
            torch.minimum(values, limits, out=values)
        else:
            torch.maximum(values, limits, out=values)

    def _agreement(self, rows: slice, columns: slice) -> Literal["all", "some", "none"]:
        """How many pairs of a tile count, as far as their groups are concerned."""
        if self._lows is None or self._y_lows is None:
            return "some"
        low, high = self._lows[rows.start // self._step]
        y_low, y_high = self._y_lows[columns.start // self.plan.tile]
        if high < y_low or y_high < low:
            return "all" if self.plan.pairs == "different" else "none"
        if low == high == y_low == y_high:
            return "all" if self.plan.pairs == "same" else "none"
        return "some"


def added(found: Sequence[Tensor]) -> Tensor:
    """The sum over all shares, added in order; overwrites that of the first."""
    first, *rest = found
    for more in rest:
        first.add_(more)
    return first


def _restored(values: Tensor, order: Tensor | None) -> Tensor:
    if order is None:
        return values
    result = torch.empty_like(values)
    result[order] = values
    return result


def _ends(groups: Tensor | None, step: int) -> list[tuple[int, int]] | None:
    """First and last group of each tile's rows, which are in the order of their groups."""
    if groups is None or not len(groups):
        return None
    starts = torch.arange(0, len(groups), step)
    ends = (starts + step).clamp_max(len(groups)) - 1
    return list(zip(groups[starts].tolist(), groups[ends].tolist(), strict=True))
