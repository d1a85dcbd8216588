"""Discovery by k-means: with the centres of the known classes, or without looking at a label."""

from __future__ import annotations

from typing import Annotated

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from repertoire.discover._base import Classes, Discoverer, Found, reduced
from repertoire.discover._number import By, number_of_classes
from repertoire.ops import Clusters, kmeans, pinned_kmeans
from repertoire.ranges import AtLeast, checked
from repertoire.registry import register

__all__ = ["KMeans", "SemiSupervisedKMeans", "counted", "far_from_centres"]


@register("discoverers", "semi-supervised-k-means")
class SemiSupervisedKMeans(Discoverer):
    """k-means in which labelled rows never leave their class, and new groups start far from the known ones.

    The baseline of Vaze et al., *Generalized Category Discovery* (2022): rows of unit length at their principal
    components, clustered by :func:`repertoire.ops.pinned_kmeans`.

    Args:
        classes: the number of classes, known and new, or "auto" (default) to estimate it.
        by: what says how many there are where that is estimated; see :func:`repertoire.discover.class_number`.
        components: principal components of the features, at most; 128 by default.
        starts: draws of the first centres, of which the best is kept; 1 or more.
        random_state: seed of whatever is drawn.

    Attributes:
        labels_, n_classes_, n_classes_interval_, outlier_scores_, probabilities_: see
            :class:`repertoire.discover.Discoverer`. The outlier score is the distance to the nearest centre, and there
            are no probabilities.
        cluster_centers_: float32 `[K, components]`, in the order in which they were found.

    Raises:
        ConfigError: an option out of range. When fitted, see :meth:`repertoire.discover.Discoverer.fit`.

    Example:
        >>> import torch
        >>> from repertoire.discover import SemiSupervisedKMeans
        >>> x = torch.tensor([[1.0, 0.1], [1.0, 0.0], [-1.0, 0.1], [-1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
        >>> SemiSupervisedKMeans(classes=3).fit_predict(x, [0, -1, 1, -1, -1, -1]).tolist()
        [0, 0, 1, 1, 2, 2]
    """

    @checked
    def __init__(
        self,
        classes: Classes = "auto",
        by: By = "hidden-classes",
        components: Annotated[int, AtLeast(1)] = 128,
        starts: Annotated[int, AtLeast(1)] = 10,
        random_state: Annotated[int, AtLeast(0)] = 0,
    ) -> None:
        self.classes = classes
        self.by = by
        self.components = components
        self.starts = starts
        self.random_state = random_state

    def _discover(self, x: Tensor, labels: Tensor, known: int, generator: torch.Generator) -> Found:
        classes, interval = counted(self.classes, x, labels, self.by, generator)
        rows = F.normalize(reduced(x, self.components))
        found = pinned_kmeans(rows, classes, labels, starts=self.starts, generator=generator)
        self.cluster_centers_ = found.centres.numpy()
        return Found(found.assignment, far_from_centres(rows, found), classes, interval)


@register("discoverers", "k-means")
class KMeans(Discoverer):
    """k-means that looks at no label; its clusters are then given the known classes that fit them best.

    What every other discoverer has to beat: Lloyd, *Least Squares Quantization in PCM* (1982), on rows of unit length
    at their principal components. Which cluster is which known class is the assignment, one to one, that agrees with
    most labelled rows; the other clusters are new groups.

    Args:
        classes: the number of classes, known and new, or "auto" (default) to estimate it.
        by: what says how many there are where that is estimated; "silhouette" by default, which needs no label.
        components: principal components of the features, at most; 128 by default.
        starts: draws of the first centres, of which the best is kept; 1 or more.
        random_state: seed of whatever is drawn.

    Attributes:
        labels_, n_classes_, n_classes_interval_, outlier_scores_, probabilities_: see
            :class:`repertoire.discover.Discoverer`. The outlier score is the distance to the nearest centre, and there
            are no probabilities.

    Raises:
        ConfigError: an option out of range. When fitted, see :meth:`repertoire.discover.Discoverer.fit`.

    Example:
        >>> import torch
        >>> from repertoire.discover import KMeans
        >>> x = torch.tensor([[1.0, 0.1], [1.0, 0.0], [-1.0, 0.1], [-1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
        >>> KMeans(classes=3).fit_predict(x, [0, -1, 1, -1, -1, -1]).tolist()
        [0, 0, 1, 1, 2, 2]
    """

    @checked
    def __init__(
        self,
        classes: Classes = "auto",
        by: By = "silhouette",
        components: Annotated[int, AtLeast(1)] = 128,
        starts: Annotated[int, AtLeast(1)] = 10,
        random_state: Annotated[int, AtLeast(0)] = 0,
    ) -> None:
        self.classes = classes
        self.by = by
        self.components = components
        self.starts = starts
        self.random_state = random_state

    def _discover(self, x: Tensor, labels: Tensor, known: int, generator: torch.Generator) -> Found:
        classes, interval = counted(self.classes, x, labels, self.by, generator)
        rows = F.normalize(reduced(x, self.components))
        tries = [kmeans(rows, classes, iterations=50, generator=generator) for _ in range(self.starts)]
        found = min(tries, key=lambda each: float((rows - each.centres[each.assignment]).square().sum()))
        groups = _named(found.assignment, labels, known, classes)
        return Found(groups, far_from_centres(rows, found), classes, interval)


def counted(
    classes: Classes, x: Tensor, labels: Tensor, by: By, generator: torch.Generator, *, unit: bool = True
) -> tuple[int, tuple[int, int] | None]:
    """The number of classes: the given one, or an estimate with the least and the largest of its parts."""
    if classes != "auto":
        return classes, None
    found = number_of_classes(x, labels, by, None, 5, generator, unit=unit)
    return found.count, (min(found.low, found.count), max(found.high, found.count))


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
