r"""The walk over tiles of pairs that all reductions share: which pairs count, how similar they are, how they are cut.

A tile is the matrix of similarities of some rows of x with some rows of y, small enough to stay in the cache of a core
while it is made, reduced and forgotten. Nothing here or above it ever holds an N x M tensor.

For one set of rows (y is None) whose pairs look the same from both sides, the walk goes over the tiles on and above the
diagonal only, and a tile off the diagonal is *mirrored*: it also stands for its transpose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypedDict

import torch
from torch import Tensor

from repertoire.errors import ShapeError

__all__ = [
    "Inputs",
    "Mask",
    "Pairs",
    "Plan",
    "Similarity",
    "Which",
    "compute_dtype",
    "inverse_lengths",
    "leave_out",
    "make_plan",
    "tile_sides",
]

Pairs = Literal["all", "same", "different"]
Similarity = Literal["dot", "cosine", "euclidean", "sqeuclidean"]
Mask = Callable[[Tensor, slice, slice], Tensor]

#: Bytes of a tile. On a CPU a tile and the rows that made it stay in the second-level cache of a core (512 x 512 in
#: float32 was the fastest of 256² to 2048²); an accelerator needs large tiles to be busy.
_TILE_BYTES = {"cpu": 2**20}
_TILE_BYTES_ELSEWHERE = 2**26

#: Rows of a tile below which it takes longer to ask for it than to make it.
_SMALLEST_TILE = 256


class Which(TypedDict, total=False):
    """Choice of the pairs (i, j) that take part in a reduction, by a tensor a row, or a function.

    Attributes:
        exclude_self: leave the pairs (i, i) out; only where y is None.
        exclude: int64 `[N]` or `[N, k]`, indices of rows of y to leave out for each row of x; -1 for none.
        pairs: "all" (default), or only those of the "same" or of "different" groups.
        groups: int64 `[N]`, the group of each row of x, if `pairs` is not "all".
        y_groups: int64 `[M]`, the group of each row of y; not given where y is None.
        mask: `mask(tile, rows, columns)` is true where a pair counts: bool, of the tile's shape. The tile holds the
            scaled similarities of x[rows] with y[columns], and rows and columns are slices. It gets no gradient.
        tile: rows and columns of a tile; chosen for the device if None.
    """

    exclude_self: bool
    exclude: Tensor | None
    pairs: Pairs
    groups: Tensor | None
    y_groups: Tensor | None
    mask: Mask | None
    tile: int | None


class Inputs(NamedTuple):
    """The tensors of a reduction that may need a gradient. y is None for pairs within x."""

    x: Tensor
    y: Tensor | None = None
    bias: Tensor | None = None
    """`[N]`, added to the scaled similarities of a row of x."""
    y_bias: Tensor | None = None
    """`[M]`, added to those of a row of y."""
    row_scale: Tensor | None = None
    """`[N]`, multiplies the similarities of a row of x."""
    x_factor: Tensor | None = None
    """`[N]`, multiplies a row of x before anything else; that of y too where y is None."""

    @property
    def other(self) -> Tensor:
        return self.x if self.y is None else self.y

    @property
    def other_factor(self) -> Tensor | None:
        return self.x_factor if self.y is None else None


@dataclass(frozen=True)
class Plan:
    """Plan of a reduction over pairs: which count, how similar they are, how they are cut into tiles."""

    similarity: Literal["dot", "euclidean", "sqeuclidean"]
    scale: float
    symmetric: bool
    tile: int
    tall: int
    """Rows of a tile; more than columns where y has fewer rows than a tile."""
    normalise: bool = False
    """Whether rows are brought to unit length, tile by tile."""
    y_ready: bool = False
    """Whether the rows of y are to be taken as they are all the same."""
    exclude_self: bool = False
    exclude: Tensor | None = None
    pairs: Pairs = "all"
    groups: Tensor | None = None
    y_groups: Tensor | None = None
    mask: Mask | None = None
    ranks: Tensor | None = None
    """Groups as small numbers in the dtype of the tiles, where they are few enough to be exact."""
    y_ranks: Tensor | None = None
    order: Tensor | None = None
    """Rows of x in the order of their groups, if they are walked in that order: whole tiles are then of one mind."""
    y_order: Tensor | None = None

    @property
    def distances(self) -> bool:
        return self.similarity != "dot"

    @property
    def partial(self) -> bool:
        """True if some pairs may not count."""
        return self.exclude_self or any(v is not None for v in (self.exclude, self.groups, self.mask))

    @property
    def unordered(self) -> Plan:
        """The same, walked in the order in which the rows were given: for functions of one's own."""
        return replace(self, order=None, y_order=None)

    def keep(self, values: Tensor, rows: slice, columns: slice) -> Tensor | None:
        """Mask of the pairs that count, bool of the tile's shape; None if all do."""
        if not self.partial:
            return None
        marks = torch.ones_like(values, dtype=torch.bool)
        leave_out(
            marks,
            values,
            rows,
            columns,
            False,
            pairs=self.pairs,
            groups=self.groups,
            y_groups=self.y_groups,
            mask=self.mask,
            exclude=self.exclude,
            exclude_self=self.exclude_self,
        )
        return marks

    def slices(self, count: int, start: int = 0, step: int = 0) -> Iterator[slice]:
        step = step or self.tile
        for first in range(start, count, step):
            yield slice(first, min(first + step, count))

    def squared_lengths(self, x: Tensor, factor: Tensor | None) -> Tensor:
        """`[N]`, of the rows as the tiles see them."""
        result = x.new_empty(len(x), dtype=compute_dtype(x))
        for rows in self.slices(len(x)):
            torch.sum(self.rows(x, factor, rows).square(), dim=1, out=result[rows])
        return result

    def rows(self, x: Tensor, factor: Tensor | None, rows: slice | Tensor) -> Tensor:
        """Some rows as the tiles see them: in the precision of the sums, of unit length, multiplied by their factors.

        A view where nothing is to be done.
        """
        chosen = x[rows].to(compute_dtype(x))
        if self.normalise:
            chosen = chosen * inverse_lengths(chosen)
        return chosen if factor is None else chosen * factor[rows, None]

    def dense(self, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
        """All values as one matrix that autograd can differentiate as often as it likes, and where pairs count."""
        x = self.rows(inputs.x, inputs.x_factor, slice(None))
        y = x if inputs.y is None else self.rows(inputs.y, None, slice(None))
        if self.distances:
            values = x.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * x @ y.T
            positive = values > 0
            if inputs.y is None:
                positive = positive & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
            if self.similarity == "euclidean":
                # Square roots of ones in place of zeros, so that their derivatives are numbers.
                values = values.where(positive, 1.0).sqrt()
            values = values.where(positive, 0.0)
        else:
            values = x @ y.T
        values = values * self.scale
        if inputs.row_scale is not None:
            values = values * inputs.row_scale[:, None]
        if inputs.bias is not None:
            values = values + inputs.bias[:, None]
        if inputs.y_bias is not None:
            values = values + inputs.y_bias
        with torch.no_grad():
            keep = self.keep(values.detach(), slice(0, len(x)), slice(0, len(y)))
        return values, keep


def compute_dtype(x: Tensor) -> torch.dtype:
    """Precision that sums are made in: float32 for half precision."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def tile_sides(x: Tensor, columns: int) -> tuple[int, int]:
    """Columns and rows of a tile on the device of x, if there are so many columns."""
    area = _TILE_BYTES.get(x.device.type, _TILE_BYTES_ELSEWHERE) // (torch.finfo(compute_dtype(x)).bits // 8)
    tile = max(1, int(area**0.5))
    return tile, min(area // columns, 16 * tile) if 0 < columns < tile else tile


def inverse_lengths(x: Tensor) -> Tensor:
    """One over the length of each row, `[N, 1]`; zero for a zero row."""
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    zero = length < torch.finfo(x.dtype).tiny
    return length.masked_fill(zero, 1.0).reciprocal().masked_fill(zero, 0.0)


def leave_out(
    target: Tensor,
    values: Tensor,
    rows: slice | Tensor,
    columns: slice,
    fill: float,
    *,
    pairs: Pairs = "all",
    groups: Tensor | None = None,
    y_groups: Tensor | None = None,
    mask: Mask | None = None,
    exclude: Tensor | None = None,
    exclude_self: bool = False,
) -> None:
    """Fills the target, of a tile's shape, where a pair does not count; `values` is what the mask looks at."""
    keep = None if mask is None or not isinstance(rows, slice) else mask(values, rows, columns)
    if keep is not None and (keep.shape != values.shape or keep.dtype != torch.bool):
        raise ShapeError(
            f"mask must give bool {list(values.shape)} for this tile, found {keep.dtype} {list(keep.shape)}"
        )
    if groups is not None and y_groups is not None:
        equal = groups[rows, None] == y_groups[columns]
        target.masked_fill_(equal if pairs == "different" else equal.logical_not_(), fill)
    if exclude is not None:
        _fill_at(target, exclude[rows] - columns.start, fill)
    if exclude_self:
        if not isinstance(rows, slice):
            _fill_at(target, rows - columns.start, fill)
        elif rows == columns:
            target.diagonal().fill_(fill)
    if keep is not None:
        target.masked_fill_(keep.logical_not(), fill)


def _fill_at(target: Tensor, columns: Tensor, fill: float) -> None:
    """Fills one or several columns of each row, as far as they lie inside."""
    if columns.ndim == 1:
        columns = columns[:, None]
    if target.device.type == "cpu" and not torch.compiler.is_compiling():
        row, place = ((columns >= 0) & (columns < target.shape[1])).nonzero(as_tuple=True)
        target[row, columns[row, place]] = fill
        return
    # No list of places, for whose length one would have to wait for the device.
    every = torch.arange(target.shape[1], device=target.device)
    for column in columns.unbind(1):
        target.masked_fill_(column[:, None] == every, fill)


#: Numbers below which all are exact in float32.
_EXACT = 2**24


def _ranks(groups: Tensor, y_groups: Tensor | None, dtype: torch.dtype, few: bool) -> tuple[Tensor, Tensor]:
    """Groups as 0, 1, 2, ... in the order of their names; of a few rows, names that are small numbers do as they are,
    because to sort them takes a tenth of the time of a tile."""
    if (
        few
        and groups.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and all(_small(names) for names in (groups, y_groups))
    ):
        ranks = groups.to(dtype)
        return ranks, ranks if y_groups is None else y_groups.to(dtype)
    ordered, order = (groups if y_groups is None else torch.cat([groups, y_groups])).sort(stable=True)
    rank = torch.zeros(len(ordered), dtype=torch.int64, device=ordered.device)
    torch.cumsum(ordered[1:] != ordered[:-1], 0, out=rank[1:])
    ranks = torch.empty_like(rank).scatter_(0, order, rank).to(dtype)
    return (ranks, ranks) if y_groups is None else (ranks[: len(groups)], ranks[len(groups) :])


def _small(names: Tensor | None) -> bool:
    if names is None or not len(names):
        return True
    least, most = names.aminmax()
    return int(least) >= 0 and int(most) < _EXACT


def make_plan(x: Tensor, y: Tensor | None, similarity: Similarity, scale: float, symmetric: bool, which: Which) -> Plan:
    """Checks what was given and says how to walk.

    Args:
        symmetric: whether the reduction lets a tile stand for its transpose, if the pairs that count allow it.

    Raises:
        ShapeError: shapes, dtypes or arguments that do not fit each other.
    """
    unknown = set(which) - set(Which.__annotations__)
    if unknown:
        raise TypeError(f"unexpected arguments {sorted(unknown)}; known are {sorted(Which.__annotations__)}")
    exclude_self, exclude = which.get("exclude_self", False), which.get("exclude")
    pairs, groups, y_groups = which.get("pairs", "all"), which.get("groups"), which.get("y_groups")
    mask, tile = which.get("mask"), which.get("tile")
    if x.ndim != 2 or not x.is_floating_point():
        raise ShapeError(f"x must be a floating point [N, d], found {x.dtype} {list(x.shape)}")
    if y is not None and (y.ndim != 2 or y.shape[1] != x.shape[1] or y.dtype != x.dtype or y.device != x.device):
        raise ShapeError(
            f"y must be {x.dtype} [M, {x.shape[1]}] on {x.device} like x, found {y.dtype} {list(y.shape)} on {y.device}"
        )
    if similarity not in ("dot", "cosine", "euclidean", "sqeuclidean"):
        raise ShapeError(f"similarity must be 'dot', 'cosine', 'euclidean' or 'sqeuclidean', found {similarity!r}")
    if exclude_self and y is not None:
        raise ShapeError(
            "exclude_self is for pairs within x; leave y out, or give exclude=torch.arange(len(x)) for pairs (i, i) "
            "of two sets"
        )
    if exclude is not None and (exclude.is_floating_point() or exclude.ndim not in (1, 2) or len(exclude) != len(x)):
        raise ShapeError(f"exclude must be int64 [{len(x)}] or [{len(x)}, k], found {list(exclude.shape)}")
    if pairs not in ("all", "same", "different"):
        raise ShapeError(f"pairs must be 'all', 'same' or 'different', found {pairs!r}")
    if (groups is None) != (pairs == "all"):
        raise ShapeError(f"groups and pairs go together: pairs is {pairs!r} and groups is {type(groups).__name__}")
    if (y_groups is None) != (groups is None or y is None):
        raise ShapeError("y_groups must be given if, and only if, y and groups are")
    for name, values, rows in (("groups", groups, len(x)), ("y_groups", y_groups, 0 if y is None else len(y))):
        if values is not None and values.shape != (rows,):
            raise ShapeError(f"{name} must be [{rows}], one for each row, found {list(values.shape)}")
    tall = tile or 0
    if tile is None:
        tile, tall = tile_sides(x, len(x) if y is None else len(y))
    ranks = y_ranks = order = y_order = None
    y_groups = groups if y is None else y_groups
    if groups is not None and y_groups is not None:
        most = max(len(groups), len(y_groups))
        ranks, y_ranks = _ranks(groups, None if y is None else y_groups, compute_dtype(x), most <= tile)
        # Rows in the order of their groups make whole tiles count, or not. On an accelerator one would have to wait
        # for it.
        if mask is None and groups.device.type == "cpu" and most > tile:
            order = ranks.argsort(stable=True)
            y_order = order if y is None else y_ranks.argsort(stable=True)
            if pairs == "same" and which.get("tile") is None:
                # The pairs that count lie along the diagonal: tiles not much larger than the groups waste little.
                size = most // (1 + int(max(ranks[order[-1:]].sum(), y_ranks[y_order[-1:]].sum())))
                tile = tall = min(tile, max(_SMALLEST_TILE, 2 * size))
    return Plan(
        similarity="dot" if similarity == "cosine" else similarity,
        scale=float(scale),
        symmetric=symmetric and y is None and exclude is None and mask is None,
        tile=tile,
        tall=tall,
        normalise=similarity == "cosine" and x.dtype != compute_dtype(x),
        exclude_self=exclude_self,
        exclude=exclude,
        pairs=pairs,
        groups=groups,
        y_groups=y_groups,
        mask=mask,
        ranks=ranks,
        y_ranks=y_ranks,
        order=order,
        y_order=y_order,
    )
