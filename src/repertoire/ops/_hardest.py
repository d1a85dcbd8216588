"""The hardest pairs of each row: the least alike of its own group, and the most alike of the others."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.ops._chosen import chosen
from repertoire.ops._extremes import Extreme, best_of, search
from repertoire.ops._pairs import prepare
from repertoire.ops._tiles import Inputs, Plan, Similarity, Which
from repertoire.ops._transforms import transformed
from repertoire.ops._walk import Walk

__all__ = ["Hardest", "pair_hardest"]


class Hardest(NamedTuple):
    """The hardest positive and the hardest negative of each row."""

    same: Extreme
    """The farthest, or least similar, row of the same group."""
    different: Extreme
    """The nearest, or most similar, row of another group."""


def pair_hardest(
    x: Tensor,
    y: Tensor | None = None,
    *,
    groups: Tensor,
    y_groups: Tensor | None = None,
    similarity: Similarity = "euclidean",
) -> Hardest:
    """The hardest positive and the hardest negative of each row, without the matrix of similarities.

    What :func:`repertoire.ops.pair_max` finds among the pairs of a group and :func:`repertoire.ops.pair_min` among the
    others (the other way round for similarities). Where all pairs fit into one tile both look at the same one;
    elsewhere the first search goes over the pairs of a group only.

    Args:
        x: float `[N, d]`.
        y: float `[M, d]` of the same dtype and device; x itself if None, without the pairs of a row with itself.
        groups: int64 `[N]`, the group of each row of x.
        y_groups: int64 `[M]`, the group of each row of y; not given where y is None.
        similarity: the distances "euclidean" (default) and "sqeuclidean", or "dot" and "cosine".

    Returns:
        values float `[N]`, differentiable, and indices int64 `[N]`, for the same group and for the others; infinite,
        with a zero gradient, and -1 where there is no such row.

    Raises:
        ShapeError: shapes, dtypes or arguments that do not fit each other.

    Example:
        >>> import torch
        >>> from repertoire.ops import pair_hardest
        >>> x = torch.tensor([[0.0], [1.0], [3.0]])
        >>> found = pair_hardest(x, groups=torch.tensor([0, 0, 1]))
        >>> found.same.values, found.different.values
        (tensor([1., 1., -inf]), tensor([3., 2., 2.]))
    """
    if groups is None:
        raise ShapeError("groups must be int64 [N], the group of each row of x, found None")
    within = y is None
    same: Which = {"pairs": "same", "groups": groups, "y_groups": y_groups, "exclude_self": within}
    different: Which = {"pairs": "different", "groups": groups, "y_groups": y_groups}
    plan, inputs = prepare(x, y, similarity, 1.0, None, None, symmetric=True, which=same)
    with torch.no_grad():
        detached = Inputs(inputs.x.detach(), None if inputs.y is None else inputs.y.detach())
        far = plan.distances
        if not transformed() and plan.order is None and 0 < len(x) <= plan.tall and 0 < len(inputs.other) <= plan.tile:
            index = _in_one_tile(plan, detached)
        else:
            # Rows are of unit length by now, unless they are to be made so tile by tile.
            kind: Similarity = "cosine" if plan.normalise else plan.similarity
            others, _ = prepare(*detached[:2], kind, 1.0, None, None, symmetric=True, which=different)
            index = torch.cat([search(plan, detached, 1, far), search(others, detached, 1, not far)], dim=1)
    values = chosen(plan, index, 0.0, inputs.x, inputs.y)
    worst = torch.tensor([-torch.inf, torch.inf] if far else [torch.inf, -torch.inf], device=x.device)
    values = torch.where(index < 0, worst.to(values.dtype), values)
    return Hardest(Extreme(values[:, 0], index[:, 0]), Extreme(values[:, 1], index[:, 1]))


def _in_one_tile(plan: Plan, inputs: Inputs) -> Tensor:
    """Both searches in the one tile that there is."""
    far = plan.distances
    if plan.similarity == "euclidean":  # The order of distances is that of their squares.
        plan = replace(plan, similarity="sqeuclidean")
    groups, y_groups = plan.ranks, plan.y_ranks
    assert groups is not None
    assert y_groups is not None
    with torch.autocast(inputs.x.device.type, enabled=False):
        (tile,) = Walk(plan, inputs, fill=None)
        values = tile.values
        # Infinite, of one sign within a group and of the other elsewhere: the smaller of a value and this leaves one
        # kind of pairs, the larger the other kind.
        limits = torch.ne(groups[:, None], y_groups, out=torch.empty_like(values))
        limits.sub_(0.5).mul_(-torch.inf if far else torch.inf)
        lower, upper = torch.minimum(values, limits), torch.maximum(values, limits, out=limits)
        own, other = (lower, upper) if far else (upper, lower)
        worst = -torch.inf if far else torch.inf
        if plan.exclude_self:
            own.diagonal().fill_(worst)
        found = best_of(own, far), best_of(other, not far)
        return torch.stack(
            [place.where(best != none, -1) for (best, place), none in zip(found, (worst, -worst), strict=True)], dim=1
        )
