"""Discovery by k-means: with the centres of the known classes, or without looking at a label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from repertoire.discover._base import Found, reduced
from repertoire.discover._number import By, Counting
from repertoire.ops import Clusters, kmeans, pinned_kmeans
from repertoire.ranges import AtLeast
from repertoire.registry import register

__all__ = ["KMeans", "OnCentres", "SemiSupervisedKMeans", "far_from_centres"]


class OnCentres(Counting):
    """A discoverer that clusters rows of unit length at their principal components, or what it makes of them."""

    components: Annotated[int, AtLeast(1)] = 128
    starts: Annotated[int, AtLeast(1)] = 10

    _docstring: ClassVar[Mapping[str, str]] = {
        "Attributes": """
        labels_, n_classes_, n_classes_interval_: see :class:`repertoire.discover.Discoverer`.
        outlier_scores_: the distance to the nearest centre.
        probabilities_: None.
        """
    }


@register("discoverers", "semi-supervised-k-means")
class SemiSupervisedKMeans(OnCentres):
    """k-means in which labelled rows never leave their class, and new groups start far from the known ones.

    The baseline of Vaze et al., *Generalized Category Discovery* (2022): rows of unit length at their principal
    components, clustered by :func:`repertoire.ops.pinned_kmeans`.

    Attributes:
        labels_, n_classes_, n_classes_interval_, outlier_scores_, probabilities_: see
            :class:`repertoire.discover.Discoverer`. The outlier score is the distance to the nearest centre, and there
            are no probabilities.
        cluster_centers_: float32 `[K, components]`, in the order in which they were found.

    Example:
        >>> import torch
        >>> from repertoire.discover import SemiSupervisedKMeans
        >>> x = torch.tensor([[1.0, 0.1], [1.0, 0.0], [-1.0, 0.1], [-1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
        >>> SemiSupervisedKMeans(classes=3).fit_predict(x, [0, -1, 1, -1, -1, -1]).tolist()
        [0, 0, 1, 1, 2, 2]
    """

    def _discover(self, x: Tensor, labels: Tensor, known: int, generator: torch.Generator) -> Found:
        classes, interval = self._counted(x, labels, generator)
        rows = F.normalize(reduced(x, self.components))
        found = pinned_kmeans(rows, classes, labels, starts=self.starts, generator=generator)
        self.cluster_centers_ = found.centres.numpy()
        return Found(found.assignment, far_from_centres(rows, found), classes, interval)


@register("discoverers", "k-means")
class KMeans(OnCentres):
    """k-means that looks at no label; its clusters are then given the known classes that fit them best.

    What every other discoverer has to beat: Lloyd, *Least Squares Quantization in PCM* (1982), on rows of unit length
    at their principal components. Which cluster is which known class is the assignment, one to one, that agrees with
    most labelled rows; the other clusters are new groups.

    Args:
        by: what says how many there are where that is estimated; "silhouette" by default, which needs no label.

    Example:
        >>> import torch
        >>> from repertoire.discover import KMeans
        >>> x = torch.tensor([[1.0, 0.1], [1.0, 0.0], [-1.0, 0.1], [-1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
        >>> KMeans(classes=3).fit_predict(x, [0, -1, 1, -1, -1, -1]).tolist()
        [0, 0, 1, 1, 2, 2]
    """

    by: By = "silhouette"

    def _discover(self, x: Tensor, labels: Tensor, known: int, generator: torch.Generator) -> Found:
        classes, interval = self._counted(x, labels, generator)
        rows = F.normalize(reduced(x, self.components))
        tries = [kmeans(rows, classes, iterations=50, generator=generator) for _ in range(self.starts)]
        found = min(tries, key=lambda each: float((rows - each.centres[each.assignment]).square().sum()))
        groups = _named(found.assignment, labels, known, classes)
        return Found(groups, far_from_centres(rows, found), classes, interval)


def far_from_centres(rows: Tensor, found: Clusters) -> Tensor:
    """Distance of each row to the nearest centre."""
    return torch.cdist(rows, found.centres).amin(1)


def _named(clusters: Tensor, labels: Tensor, known: int, count: int) -> Tensor:
    """Clusters numbered so that the known classes, in the best assignment to them, come first."""
    table = torch.zeros(known, count)
    seen = labels >= 0
    table.index_put_((labels[seen], clusters[seen]), torch.ones(int(seen.sum())), accumulate=True)
    rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
    numbers = torch.full((count,), -1)
    numbers[torch.from_numpy(columns)] = torch.from_numpy(rows)
    numbers[numbers < 0] = torch.arange(known, count)
    return numbers[clusters]
