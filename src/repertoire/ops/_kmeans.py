"""k-means clustering on the device of its data, with clusters of equal size where they are wanted."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.ops._rows import class_sums

__all__ = ["Clusters", "kmeans"]


class Clusters(NamedTuple):
    """A clustering."""

    assignment: Tensor
    """int64 `[N]`, the cluster of each row."""
    centres: Tensor
    """float `[K, d]`, the mean of each cluster."""


@torch.no_grad()
def kmeans(
    x: Tensor,
    clusters: int,
    *,
    balanced: bool = False,
    iterations: int = 25,
    generator: torch.Generator | None = None,
) -> Clusters:
    r"""Lloyd's k-means by Euclidean distance, started from centres that lie far apart (k-means++).

    Give unit rows for a clustering by cosine.

    Args:
        x: float `[N, d]`.
        clusters: K in 1..N.
        balanced: no cluster gets more than ceil(N / K) rows: the rows nearest to a centre stay, the others go to the
            next one that has room.
        iterations: at most so many; it ends when no row changes its cluster.
        generator: on the CPU; what the first centres are drawn with. Torch's own if None.

    Returns:
        the cluster of each row, and the clusters' means. Memory is O(NK).

    Raises:
        ShapeError: x is no floating point matrix, or the number of clusters is out of range.

    Example:
        >>> import torch
        >>> from repertoire.ops import kmeans
        >>> found = kmeans(torch.tensor([[0.0], [0.1], [5.0], [5.1]]), 2)
        >>> bool(found.assignment[0] == found.assignment[1] != found.assignment[2] == found.assignment[3])
        True
    """
    if x.ndim != 2 or not x.is_floating_point():
        raise ShapeError(f"x must be a floating point [N, d], found {x.dtype} {list(x.shape)}")
    if not 1 <= clusters <= len(x):
        raise ShapeError(f"clusters must lie in 1..{len(x)}, the number of rows, found {clusters}")
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    centres = _spread(x, clusters, generator)
    capacity = -(-len(x) // clusters)
    assignment = torch.full((len(x),), -1, dtype=torch.int64, device=x.device)
    for _ in range(iterations):
        distances = torch.cdist(x, centres)
        changed = _fill(distances, capacity) if balanced else distances.argmin(1)
        if torch.equal(changed, assignment):
            break
        assignment = changed
        sizes = torch.bincount(assignment, minlength=clusters)
        means = class_sums(x, assignment, clusters) / sizes.clamp_min(1)[:, None]
        # A centre that lost all its rows stays where it was.
        centres = torch.where((sizes > 0)[:, None], means, centres)
    return Clusters(assignment, centres)


def _spread(x: Tensor, clusters: int, generator: torch.Generator | None) -> Tensor:
    """Rows as first centres, each drawn with the probability of its squared distance to those before."""
    chosen = [int(torch.randint(len(x), (), generator=generator))]
    nearest = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
    while len(chosen) < clusters:
        nearest = torch.minimum(nearest, (x - x[chosen[-1]]).square().sum(1))
        weight = nearest.double().cpu()
        if not float(weight.sum()) > 0:  # as many duplicates as rows are left
            weight = torch.ones_like(weight)
        chosen.append(int(torch.multinomial(weight, 1, generator=generator)))
    return x[chosen]


def _fill(distances: Tensor, capacity: int) -> Tensor:
    """The nearest centre of each row that has room. In every round each full centre keeps its nearest rows, and the
    others look on, so there are at most as many rounds as centres."""
    distances = distances.clone()
    rows, clusters = distances.shape
    assignment = torch.full((rows,), -1, dtype=torch.int64, device=distances.device)
    room = torch.full((clusters,), capacity, dtype=torch.int64, device=distances.device)
    waiting = torch.arange(rows, device=distances.device)
    while len(waiting):
        near, choice = distances[waiting].min(1)
        order = near.argsort(stable=True)
        order = order[choice[order].argsort(stable=True)]
        wanted = torch.bincount(choice, minlength=clusters)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device) - (wanted.cumsum(0) - wanted)[choice[order]]
        stays = rank < room[choice]
        assignment[waiting[stays]] = choice[stays]
        room -= torch.bincount(choice[stays], minlength=clusters)
        distances[:, room == 0] = torch.inf
        waiting = waiting[~stays]
    return assignment
