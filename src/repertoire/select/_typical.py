"""Selection of typical samples, for budgets of a few labels."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.ops import kmeans
from repertoire.ranges import AtLeast, checked
from repertoire.registry import register
from repertoire.select._contract import check_budget, check_features

__all__ = ["typical"]

_ROWS = 1024


@register("selectors", "typical")
@checked
@torch.no_grad()
def typical(
    features: Tensor,
    budget: int,
    labelled: Tensor | None = None,
    generator: torch.Generator | None = None,
    neighbours: Annotated[int, AtLeast(1)] = 20,
    clusters: Annotated[int, AtLeast(1)] = 500,
) -> Tensor:
    r"""Takes the most typical sample of each of the largest clusters without a label: for budgets of a few labels.

    Hacohen, Dekel and Weinshall, *Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets* (2022).
    All samples, labelled and not, are clustered by k-means into as many clusters as there will be labels. Of the
    clusters, those with the fewest labels come first, of these the largest; and of each the sample with the highest

    .. math:: \mathrm{typicality}(i) = \left(\frac{1}{k} \sum_{j \in \mathrm{kNN}(i)}
        \lVert z_i - z_j \rVert_2\right)^{-1}

    among the k nearest neighbours in its cluster. Rounds go on until the budget is spent. The paper takes features that
    were learned without labels.

    Args:
        features: float `[N, d]`.
        budget: how many, from 1 to N.
        labelled: float `[M, d]`, the features of samples that have a label already; none if None.
        generator: on the CPU; torch's own if None.
        neighbours: k at most, at least 1; 20 as in the paper.
        clusters: at most so many; 500 as in the paper.

    Returns:
        int64 `[budget]`, in the order in which they were taken.

    Raises:
        ShapeError: features that are no finite matrices of one width. ConfigError: an option or a budget out of range.

    Example:
        >>> import torch
        >>> from repertoire.select import typical
        >>> z = torch.tensor([[0.0], [0.1], [0.3], [9.0], [9.1], [9.9], [9.2]])
        >>> typical(z, 2, generator=torch.Generator().manual_seed(0)).tolist()
        [4, 1]
    """
    check_features(features, labelled)
    check_budget(budget, len(features))
    z = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
    known = z[:0] if labelled is None else labelled.to(z)
    every = torch.cat([z, known])
    number = min(len(known) + budget, clusters, len(every))
    cluster = kmeans(every, number, generator=generator).assignment
    mine, labels = cluster[: len(z)], torch.bincount(cluster[len(z) :], minlength=number)
    free = torch.ones(len(z), dtype=torch.bool, device=z.device)
    score = _typicality(z, mine, number, neighbours)
    chosen: list[int] = []
    while len(chosen) < budget:
        left = torch.bincount(mine[free], minlength=number)
        # The fewest labels first; of equally many, the largest cluster; the first of equal ones.
        fewest = int(labels[left > 0].min())
        best = int(left.masked_fill((labels > fewest) | (left == 0), -1).argmax())
        row = int(score.masked_fill(~free | (mine != best), -torch.inf).argmax())
        chosen.append(row)
        free[row] = False
        labels[best] += 1
    return torch.tensor(chosen, device=features.device)


def _typicality(z: Tensor, cluster: Tensor, number: int, neighbours: int) -> Tensor:
    """Minus the mean distance of each sample to its nearest neighbours in its cluster, `[N]`: in the order of
    typicality, and finite where copies lie at no distance."""
    found = torch.zeros(len(z), dtype=z.dtype, device=z.device)
    for which in range(number):
        rows = (cluster == which).nonzero().squeeze(1)
        k = min(neighbours, len(rows) - 1)
        if k < 1:
            continue
        for part in rows.split(_ROWS):
            # One more, because each is its own nearest neighbour.
            nearest = torch.cdist(z[part], z[rows]).topk(k + 1, dim=1, largest=False).values
            found[part] = -nearest[:, 1:].mean(1)
    return found
