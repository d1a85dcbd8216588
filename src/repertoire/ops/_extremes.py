"""The most similar pairs of each row, and how many pairs are more similar than a threshold."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.ops._chosen import chosen
from repertoire.ops._pairs import prepare
from repertoire.ops._tiles import Inputs, Plan, Similarity, Which, compute_dtype
from repertoire.ops._transforms import transformed
from repertoire.ops._walk import Walk, added

__all__ = ["Extreme", "best_of", "pair_count", "pair_max", "pair_min", "pair_topk", "search"]


class Extreme(NamedTuple):
    """The most extreme similarities of each row and where they are."""

    values: Tensor
    """float `[N]` or `[N, k]`; differentiable."""
    indices: Tensor
    """int64 of the same shape, indices of rows of y; -1 where there are no more pairs."""


def pair_max(x: Tensor, y: Tensor | None = None, *, similarity: Similarity = "dot", **which: Unpack[Which]) -> Extreme:
    r"""The largest similarity of each row with any row, and which row that is, without the matrix of similarities.

    .. math:: m_i = \max_{j \in A(i)} s(x_i, y_j)

    Args:
        x: float `[N, d]`.
        y: float `[M, d]` of the same dtype and device; x itself if None.
        similarity: s: "dot" (default), "cosine", or the distances "euclidean" and "sqeuclidean".
        which: the pairs that take part, and the tile: see :class:`repertoire.ops.Which`.

    Returns:
        values float `[N]` and indices int64 `[N]`; -inf, with a zero gradient, and -1 for a row without pairs. The
        index is found tile by tile and the value is computed again from the two rows, which is accurate for close rows
        too and differentiable as often as one likes. Of equal similarities any may be chosen.

    Raises:
        ShapeError: shapes, dtypes or arguments that do not fit each other.

    Example:
        >>> import torch
        >>> from repertoire.ops import pair_max
        >>> x = torch.tensor([[0.0], [1.0], [3.0]])
        >>> pair_max(x, similarity="euclidean")
        Extreme(values=tensor([3., 2., 3.]), indices=tensor([2, 2, 0]))
    """
    return _extreme(x, y, similarity, 1, True, which, flat=True)


def pair_min(x: Tensor, y: Tensor | None = None, *, similarity: Similarity = "dot", **which: Unpack[Which]) -> Extreme:
    """The smallest similarity of each row with any row, and which row that is, without the matrix of similarities.

    See :func:`repertoire.ops.pair_max`; the value is +inf for a row without pairs.

    Example:
        >>> import torch
        >>> from repertoire.ops import pair_min
        >>> x = torch.tensor([[0.0], [1.0], [3.0]])
        >>> pair_min(x, similarity="euclidean", pairs="different", groups=torch.tensor([0, 0, 1]))
        Extreme(values=tensor([3., 2., 2.]), indices=tensor([2, 2, 1]))
    """
    return _extreme(x, y, similarity, 1, False, which, flat=True)


def pair_topk(
    x: Tensor,
    y: Tensor | None = None,
    k: int = 1,
    *,
    largest: bool = True,
    similarity: Similarity = "dot",
    **which: Unpack[Which],
) -> Extreme:
    """The k largest (or smallest) similarities of each row and where they are, without the matrix of similarities.

    Args:
        x: float `[N, d]`.
        y: float `[M, d]` of the same dtype and device; x itself if None.
        k: how many, 1 or more.
        largest: False for the k smallest, such as the nearest neighbours by a distance.
        similarity: "dot" (default), "cosine", or the distances "euclidean" and "sqeuclidean".
        which: the pairs that take part, and the tile: see :class:`repertoire.ops.Which`.

    Returns:
        values float `[N, k]`, differentiable and sorted, the most extreme first; indices int64 `[N, k]`. -inf (+inf),
        with a zero gradient, and -1 where a row has fewer than k pairs.

    Raises:
        ShapeError: shapes, dtypes or arguments that do not fit each other.

    Example:
        >>> import torch
        >>> from repertoire.ops import pair_topk
        >>> x = torch.tensor([[0.0], [1.0], [3.0]])
        >>> pair_topk(x, k=2, largest=False, similarity="euclidean", exclude_self=True)
        Extreme(values=tensor([[1., 3.],
                [1., 2.],
                [2., 3.]]), indices=tensor([[1, 2],
                [0, 2],
                [1, 0]]))
    """
    if k < 1:
        raise ShapeError(f"k must be 1 or more, found {k}")
    return _extreme(x, y, similarity, k, largest, which)


def pair_count(
    x: Tensor,
    y: Tensor | None = None,
    threshold: float | Tensor = 0.0,
    *,
    relation: Literal[">", ">=", "<", "<="] = ">",
    similarity: Similarity = "dot",
    **which: Unpack[Which],
) -> Tensor:
    """Number of pairs of each row with a similarity above (or below) a threshold.

    Args:
        x: float `[N, d]`.
        y: float `[M, d]` of the same dtype and device; x itself if None.
        threshold: a number, or `[N]`, one for each row of x.
        relation: of the similarity to the threshold: ">" (default), ">=", "<" or "<=".
        similarity: "dot" (default), "cosine", or the distances "euclidean" and "sqeuclidean".
        which: the pairs that take part, and the tile: see :class:`repertoire.ops.Which`.

    Returns:
        int64 `[N]`; no gradient.

    Raises:
        ShapeError: shapes, dtypes or arguments that do not fit each other.

    Example:
        >>> import torch
        >>> from repertoire.ops import pair_count
        >>> x = torch.tensor([[0.0], [1.0], [3.0]])
        >>> pair_count(x, threshold=2.5, relation="<", similarity="euclidean", exclude_self=True)
        tensor([1, 2, 1])
    """
    if relation not in _RELATIONS:
        raise ShapeError(f"relation must be one of {', '.join(_RELATIONS)}, found {relation!r}")
    compare = _RELATIONS[relation]
    with torch.no_grad():
        plan, inputs = prepare(x, y, similarity, 1.0, None, None, symmetric=True, which=which)
        if isinstance(threshold, Tensor) and threshold.ndim:
            if threshold.shape != (len(x),):
                raise ShapeError(f"threshold must be a number or [{len(x)}], found {list(threshold.shape)}")
        else:
            threshold = x.new_tensor(float(threshold), dtype=compute_dtype(x)).expand(len(x))
        fill = -torch.inf if relation[0] == ">" else torch.inf
        walk = Walk(plan, inputs, fill=fill)
        bar = walk.arrange(threshold)

        def share(part: Walk) -> Tensor:
            count = torch.zeros(len(x), dtype=torch.int64, device=x.device)
            marks = torch.empty(0, dtype=compute_dtype(x), device=x.device)
            for tile in part:
                # Comparisons to numbers take a tenth of the time of those to bool; a tile's counts are exact.
                marks = torch.empty_like(tile.values) if marks.shape != tile.values.shape else marks
                count[tile.rows] += compare(tile.values, bar[tile.rows, None], out=marks).sum(1).long()
                if tile.mirrored:
                    count[tile.columns] += compare(tile.values, bar[tile.columns], out=marks).sum(0).long()
            return count

        return walk.restore(added(walk.over(share)))


_RELATIONS = {">": torch.gt, ">=": torch.ge, "<": torch.lt, "<=": torch.le}


def _extreme(
    x: Tensor, y: Tensor | None, similarity: Similarity, k: int, largest: bool, which: Which, flat: bool = False
) -> Extreme:
    plan, inputs = prepare(x, y, similarity, 1.0, None, None, symmetric=True, which=which)
    with torch.no_grad():
        index = search(plan, Inputs(*(None if t is None else t.detach() for t in inputs)), k, largest)  # type: ignore[arg-type]
    values = chosen(plan, index, -torch.inf if largest else torch.inf, inputs.x, inputs.y)
    return Extreme(values[:, 0], index[:, 0]) if flat else Extreme(values, index)


def search(plan: Plan, inputs: Inputs, k: int, largest: bool) -> Tensor:
    """Positions of the k most extreme similarities of each row, `[N, k]`."""
    if transformed():
        return _dense_search(plan, inputs, k, largest)
    x = inputs.x
    if plan.similarity == "euclidean" and plan.mask is None:  # The order of distances is that of their squares.
        plan = replace(plan, similarity="sqeuclidean")
    worst = -torch.inf if largest else torch.inf
    with torch.autocast(x.device.type, enabled=False):
        walk = Walk(plan, inputs, fill=worst)
        # Extremes cost a tenth of their places on a CPU, and few tiles hold the extreme of any row.
        late = k == 1 and plan.mask is None and x.device.type == "cpu" and len(inputs.other) > plan.tile
        merge = _merge_late if late else _merge

        def share(part: Walk) -> tuple[Tensor, Tensor]:
            best = x.new_full((len(x), k), worst, dtype=compute_dtype(x))
            index = torch.full((len(x), k), -1, dtype=torch.int64, device=x.device)
            for tile in part:
                merge(best, index, tile.rows, tile.values, tile.columns.start, largest)
                if tile.mirrored:
                    merge(best, index, tile.columns, tile.values.T, tile.rows.start, largest)
            return best, index

        (best, index), *rest = walk.over(share)
        for found, places in rest:
            best, order = torch.cat([best, found], 1).topk(k, dim=1, largest=largest)
            index = torch.cat([index, places], 1).gather(1, order)
        if late:
            _look_up(walk, index[:, 0], largest)
    index.masked_fill_(best == worst, -1)
    if plan.y_order is not None and len(plan.y_order):
        index = torch.where(index < 0, index, plan.y_order[index.clamp_min(0)])
    return walk.restore(index)


def _dense_search(plan: Plan, inputs: Inputs, k: int, largest: bool) -> Tensor:
    values, keep = plan.dense(inputs)
    worst = -torch.inf if largest else torch.inf
    values = values if keep is None else values.masked_fill(~keep, worst)
    found, index = values.topk(min(k, values.shape[1]), dim=1, largest=largest)
    return F.pad(index.masked_fill(found == worst, -1), (0, k - index.shape[1]), value=-1)


def _merge(best: Tensor, index: Tensor, rows: slice, values: Tensor, offset: int, largest: bool) -> None:
    """Takes the best of what was found before and what a tile holds."""
    k = best.shape[1]
    if k == 1:
        found, place = best_of(values, largest)
        better = found > best[rows, 0] if largest else found < best[rows, 0]
        best[rows, 0] = torch.where(better, found, best[rows, 0])
        index[rows, 0] = torch.where(better, place + offset, index[rows, 0])
        return
    found, place = values.topk(min(k, values.shape[1]), dim=1, largest=largest)
    together = torch.cat([best[rows], found], dim=1)
    best[rows], chosen = together.topk(k, dim=1, largest=largest)
    index[rows] = torch.cat([index[rows], place + offset], dim=1).gather(1, chosen)


def best_of(values: Tensor, largest: bool) -> tuple[Tensor, Tensor]:
    """The best of each row of a tile, and where."""
    if values.device.type != "cpu" or values.shape[1] > _EXACT:
        return values.max(1) if largest else values.min(1)
    # Four passes that are vectorised take a third of the time of one that keeps count of where it is.
    found = values.amax(1, keepdim=True) if largest else values.amin(1, keepdim=True)
    marks = torch.eq(values, found, out=torch.empty_like(values))
    place = marks.mul_(torch.arange(values.shape[1], dtype=values.dtype)).amax(1)
    return found[:, 0], place.long()


#: Columns up to which their number is exact in float32.
_EXACT = 2**24


def _merge_late(best: Tensor, index: Tensor, rows: slice, values: Tensor, offset: int, largest: bool) -> None:
    """As `_merge`, but the index is only that of the first column of the tile that has the best."""
    found = values.amax(1) if largest else values.amin(1)
    before = best[rows, 0]
    better = found > before if largest else found < before
    best[rows, 0] = torch.maximum(before, found) if largest else torch.minimum(before, found)
    index[rows, 0] = torch.where(better, offset, index[rows, 0])


def _look_up(walk: Walk, index: Tensor, largest: bool) -> None:
    """From the tile that has the best of each row to where it is: looks again at the rows that a tile was best for."""
    first = index.clone()

    def share(part: Walk) -> None:
        for columns in list(walk.plan.slices(len(walk.inputs.other)))[part.number :: part.shares]:
            rows = (first == columns.start).nonzero()[:, 0]
            for some in rows.split(walk.plan.tile):
                right = part.right(columns)
                values = right.new_empty(len(some), len(right))
                part.similarities(some, columns, part.left(some), right, values)
                part.leave_out(values, some, columns)
                index[some] = columns.start + best_of(values, largest)[1]

    walk.over(share)
