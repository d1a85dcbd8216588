"""Selection of samples that seem to be of new classes, and a mapping of clusters to classes that does not flip."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.ranges import AtLeast, Between, checked
from repertoire.registry import register
from repertoire.select._contract import check_budget, check_probabilities

__all__ = ["StableMapping", "novel_margin"]


@register("selectors", "novel-margin", paper="active-gcd")
@checked
def novel_margin(
    probabilities: Tensor, budget: int, *, known: Annotated[int, AtLeast(0)] = 0, sure: bool = False
) -> Tensor:
    """Takes as many samples of each class that is predicted and new, by the margin of their two most probable classes.

    Ma et al., *Active Generalized Category Discovery* (2024). The budget is shared out equally among the new classes.
    In the first rounds, samples with the largest margin are taken, which say what a new group is; then those with the
    smallest. What a small group leaves over is filled from the other samples that are predicted to be new, and in the
    end from all others, in the same order.

    Args:
        probabilities: float `[N, C]`, rows that sum to 1; known classes first, as discoverers give them.
        budget: how many, from 1 to N.
        known: how many of the classes are known; none by default, and at least one class counts as new.
        sure: the largest margin first, as in the first rounds; the smallest by default. The released code changes after
            the first round.

    Returns:
        int64 `[budget]`: the first of each group, then the second of each, and so on.

    Raises:
        ShapeError: no distributions, or no class that is not known. ConfigError: an option out of range.

    Example:
        >>> import torch
        >>> from repertoire.select import novel_margin
        >>> p = torch.tensor([[0.9, 0.05, 0.05], [0.0, 0.6, 0.4], [0.1, 0.8, 0.1], [0.0, 0.3, 0.7]])
        >>> novel_margin(p, 2, known=1).tolist(), novel_margin(p, 2, known=1, sure=True).tolist()
        ([1, 3], [2, 3])
    """
    check_probabilities(probabilities)
    check_budget(budget, len(probabilities))
    classes = probabilities.shape[1]
    if known >= classes:
        raise ShapeError(f"probabilities must have a new class beside the {known} known ones, found {classes} in all")
    first, second = probabilities.double().topk(2, dim=1).values.unbind(1)
    order = (first - second).argsort(descending=sure, stable=True)
    group = probabilities[order].argmax(1)
    new = group >= known
    # Place of each sample within its group; groups take turns.
    place = torch.zeros(len(order), dtype=torch.int64)
    for k in range(known, classes):
        members = (group == k).nonzero().flatten()
        place[members] = torch.arange(len(members))
    share = budget // (classes - known)
    within = new & (place < max(1, share))
    # Shares by turns, then other new ones by margin, then all others by margin.
    stage = torch.where(within, 0, torch.where(new, 1, 2))
    key = torch.where(within, place * classes + group, torch.arange(len(order)))
    ranked = torch.from_numpy(np.lexsort((key.numpy(), stage.numpy())))
    return order[ranked[:budget]]


class StableMapping:
    r"""Which class each cluster stands for, by agreement that is averaged over rounds.

    Ma et al., *Active Generalized Category Discovery* (2024), map clusters to classes with a network whose weights are
    averaged, so that the mapping does not change with every round. Here the table of agreement itself is averaged,

    .. math:: A \leftarrow \mu A + (1 - \mu) \hat A

    with :math:`\hat A` the share of the labelled samples of each class in each cluster, and the assignment of clusters
    to classes, one to one, with the largest sum of A is the mapping.

    Args:
        clusters: how many there are.
        classes: how many there are, at most as many as clusters.
        momentum: mu, from 0 (each round by itself) to below 1; 0.9 in the released code.

    Attributes:
        agreement: float64 `[clusters, classes]`.

    Raises:
        ConfigError: an option out of range. ShapeError: more classes than clusters.

    Example:
        >>> from repertoire.select import StableMapping
        >>> mapping = StableMapping(2, 2, momentum=0.5)
        >>> mapping.update([0, 0, 1, 1], [1, 1, 0, 0]).tolist()
        [1, 0]
        >>> mapping.update([0, 0, 1, 1], [0, 0, 1, 0]).tolist()  # one round that says otherwise
        [1, 0]
    """

    @checked
    def __init__(
        self,
        clusters: Annotated[int, AtLeast(1)],
        classes: Annotated[int, AtLeast(1)],
        momentum: Annotated[float, Between(0, 1, "[)")] = 0.9,
    ) -> None:
        if classes > clusters:
            raise ShapeError(f"classes must be at most {clusters}, the number of clusters; found {classes}")
        self.momentum = momentum
        self.agreement = np.zeros((clusters, classes))
        self._rounds = 0

    def update(self, clusters: Tensor | np.ndarray | list[int], labels: Tensor | np.ndarray | list[int]) -> np.ndarray:
        """Takes a round in, and gives the mapping.

        Args:
            clusters: whole numbers `[N]`, the cluster of each labelled sample.
            labels: whole numbers `[N]`, its class.

        Returns:
            int64 `[clusters]`: the class of each cluster, -1 for those that no class is left for.

        Raises:
            ShapeError: lengths that differ, or numbers out of range.
        """
        rows, columns = np.asarray(clusters), np.asarray(labels)
        whole = rows.dtype.kind in "iu" and columns.dtype.kind in "iu"
        if rows.shape != columns.shape or rows.ndim != 1 or not whole:
            raise ShapeError(
                f"clusters and labels must be whole numbers [N], found {list(rows.shape)} and {list(columns.shape)}"
            )
        count, classes = self.agreement.shape
        if len(rows) and not (0 <= rows.min() <= rows.max() < count and 0 <= columns.min() <= columns.max() < classes):
            raise ShapeError(f"clusters must lie in 0..{count - 1} and labels in 0..{classes - 1}")
        table = np.zeros((count, classes))
        np.add.at(table, (rows, columns), 1.0)
        table /= np.maximum(table.sum(0), 1.0)
        # The first round has nothing to be averaged with.
        keep = self.momentum if self._rounds else 0.0
        self.agreement = keep * self.agreement + (1 - keep) * table
        self._rounds += 1
        return self.mapping

    @property
    def mapping(self) -> np.ndarray:
        """The class of each cluster, int64 `[clusters]`; -1 for those that no class is left for."""
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(self.agreement, maximize=True)
        found = np.full(len(self.agreement), -1)
        found[rows] = columns
        return found
