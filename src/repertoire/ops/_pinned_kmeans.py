"""k-means in which the rows with a label stay in the cluster of their class."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.ops._kmeans import Clusters
from repertoire.ops._rows import class_sums
from repertoire.ranges import AtLeast, checked

__all__ = ["pinned_kmeans"]


@torch.no_grad()
@checked
def pinned_kmeans(
    x: Tensor,
    clusters: int,
    labels: Tensor,
    *,
    starts: Annotated[int, AtLeast(1)] = 5,
    iterations: Annotated[int, AtLeast(1)] = 50,
    generator: torch.Generator | None = None,
) -> Clusters:
    r"""Lloyd's k-means by Euclidean distance, in which labelled rows never leave the cluster of their class.

    The semi-supervised k-means of Vaze et al., *Generalized Category Discovery* (2022), after Basu et al.,
    *Semi-supervised Clustering by Seeding* (2002). The first centres are the means of the classes; the others are drawn
    as in k-means++ from the rows without a label, by their squared distance to the nearest centre before. Of several
    starts, the one with the least sum of squared distances is kept.

    Give unit rows for a clustering by cosine.

    Args:
        x: float `[N, d]`.
        clusters: K, at least the number of classes and at most that number and the rows without a label.
        labels: int64 `[N]`: the class of a row, 0 to C - 1 with each of them there, or -1 for a row that is free.
        starts: from how many draws of centres; 1 or more. One is enough where no centre is drawn.
        iterations: at most so many for each start; it ends when no row changes its cluster.
        generator: on the CPU; what centres are drawn with. Torch's own if None.

    Returns:
        The cluster of each row, of which 0 to C - 1 are the classes, and the clusters' means. Memory is O(NK).

    Raises:
        ShapeError: shapes or dtypes that do not fit. ConfigError: labels that are not 0 to C - 1, or a number of
            clusters out of range.

    Example:
        >>> import torch
        >>> from repertoire.ops import pinned_kmeans
        >>> x = torch.tensor([[0.0], [2.0], [2.1], [9.0], [9.1]])
        >>> pinned_kmeans(x, 2, torch.tensor([0, 0, -1, -1, -1])).assignment
        tensor([0, 0, 0, 1, 1])
    """
    if x.ndim != 2 or not x.is_floating_point():
        raise ShapeError(f"x must be a floating point [N, d], found {x.dtype} {list(x.shape)}")
    if labels.shape != x.shape[:1] or labels.dtype != torch.int64:
        raise ShapeError(f"labels must be int64 [{len(x)}], found {labels.dtype} {list(labels.shape)}")
    free = labels < 0
    known = int(labels.max()) + 1 if len(labels) else 0
    counts = torch.bincount(labels[~free], minlength=known)
    if bool((counts == 0).any()):
        raise ConfigError(
            f"class {int(counts.argmin())} of {known} has no row; number the classes from 0 without a gap"
        )
    most = known + int(free.sum())
    if not max(1, known) <= clusters <= most:
        raise ConfigError(
            f"clusters must lie in {max(1, known)}..{most}, from the number of classes to that and the rows without a "
            f"label, found {clusters}"
        )
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    means = class_sums(x[~free], labels[~free], known) / counts[:, None]
    best: Clusters | None = None
    least = float("inf")
    for _ in range(starts if clusters > known else 1):
        found = _lloyd(x, _spread(x[free], means, clusters, generator), labels, iterations)
        cost = float((x - found.centres[found.assignment]).square().sum(dtype=torch.float64))
        if best is None or cost < least:
            best, least = found, cost
    assert best is not None
    return best


def _lloyd(x: Tensor, centres: Tensor, labels: Tensor, iterations: int) -> Clusters:
    free = labels < 0
    assignment = labels.clone()
    loose = x[free]
    for _ in range(iterations):
        nearest = torch.cdist(loose, centres).argmin(1)
        if torch.equal(nearest, assignment[free]):
            break
        assignment[free] = nearest
        sizes = torch.bincount(assignment, minlength=len(centres))
        means = class_sums(x, assignment, len(centres)) / sizes.clamp_min(1)[:, None]
        # A centre that lost all its rows stays where it was.
        centres = torch.where((sizes > 0)[:, None], means, centres)
    return Clusters(assignment, centres)


def _spread(rows: Tensor, means: Tensor, clusters: int, generator: torch.Generator | None) -> Tensor:
    """The means, and rows, each drawn with the probability of its squared distance to the centres before."""
    centres = list(means)
    if len(means):
        nearest = torch.cdist(rows, means).amin(1).square()
    else:
        nearest = torch.full((len(rows),), torch.inf, dtype=rows.dtype, device=rows.device)
    while len(centres) < clusters:
        weight = nearest.double().cpu()
        if not 0 < float(weight.sum()) < torch.inf:  # the first of all, or as many duplicates as rows are left
            weight = torch.ones_like(weight)
        drawn = int(torch.multinomial(weight, 1, generator=generator))
        centres.append(rows[drawn])
        nearest = torch.minimum(nearest, (rows - rows[drawn]).square().sum(1))
    return torch.stack(centres)
