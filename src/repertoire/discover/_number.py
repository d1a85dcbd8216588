"""How many classes there are, known and new."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from repertoire.discover._base import Discoverer, reduced, rows_and_labels
from repertoire.errors import ConfigError
from repertoire.metrics import clustering_accuracy
from repertoire.ops import kmeans, pinned_kmeans
from repertoire.ranges import AtLeast, checked

__all__ = ["By", "ClassNumber", "Counting", "class_number"]

By = Literal["hidden-classes", "labelled-rows", "silhouette", "prototypes"]
"""What says how many classes there are; see `class_number`."""

ROWS = 800
"""Rows that an estimate is made from at most: a silhouette needs the distances of all pairs."""

COMPONENTS = 32

MOST = 40
"""Numbers that are tried at most; between those that are tried, the estimate is as coarse as their distance."""


@dataclass(frozen=True)
class ClassNumber:
    """An estimate of the number of classes, known and new.

    Attributes:
        count: the number, from the mean scores of all parts.
        low, high: the least and the largest of the numbers that one part of the rows each would give.
        scores: mean score of each number that was tried; the sum of two, where two decide.
    """

    count: int
    low: int
    high: int
    scores: dict[int, float]


@checked
def class_number(
    X: Any,
    y: Any,
    *,
    by: By = "hidden-classes",
    most: int | None = None,
    parts: Annotated[int, AtLeast(1)] = 5,
    random_state: Annotated[int, AtLeast(0)] = 0,
) -> ClassNumber:
    r"""Estimates how many classes there are, of which some are known.

    Rows are brought to 32 principal components and to unit length, and clustered for each number from that of the known
    classes to `most`. No class that is not in y is looked at. What decides is one of these:

    - "hidden-classes" (default): the mean of two numbers, as in Han et al., *Learning to Discover Novel Visual
      Categories via Deep Transfer Clustering* (2019). Half of the known classes are hidden from semi-supervised k-means
      (:func:`repertoire.ops.pinned_kmeans`), and the first number has the largest clustering accuracy on their rows.
      The other has the largest silhouette (Rousseeuw, *Silhouettes: A Graphical Aid to the Interpretation and
      Validation of Cluster Analysis*, 1987) of the rows without a label, where no known class is hidden. The first
      tends to say too few, the second too many.
    - "labelled-rows": the same, but the first number has the largest accuracy on the rows with a label of k-means
      without any, as in Vaze et al., *Generalized Category Discovery* (2022).
    - "silhouette": the second number alone.
    - "prototypes": after Ma et al., *ProtoGCD: Unified and Unbiased Prototype Learning for Generalized Category
      Discovery* (2025), whose criterion joins how well prototypes fit the old classes and how well they keep all
      classes apart. In our reading: a fifth of the rows of each known class loses its label, and the number has the
      largest sum of their mean probability in a softmax of the cosines to the centres (temperature 0.1) and of the
      silhouette.

    Args:
        X: float `[N, d]`.
        y: whole numbers `[N]`: a known class from 0 on, or -1.
        by: what decides; "hidden-classes" by default.
        most: the largest number that is tried; by default three times that of the known classes, and 10 more. Of more
            than 40 numbers, 40 that are evenly spaced are tried.
        parts: the estimate is made from so many random parts of the rows, half of them each and 800 at most; 1 or more.
        random_state: seed of the parts, of what is hidden and of the centres.

    Returns:
        The number, how far it scatters over the parts, and the scores.

    Raises:
        ShapeError: shapes or dtypes that do not fit. ConfigError: an option out of range, labels that are not 0 to
            C - 1.

    Example:
        >>> import torch
        >>> from repertoire.discover import class_number
        >>> truth = torch.arange(5).repeat_interleave(40)
        >>> x = 5 * torch.eye(5)[truth] + torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
        >>> class_number(x, torch.where(truth < 3, truth, -1)).count
        5
    """
    x, labels = rows_and_labels(X, y)
    return number_of_classes(x, labels, by, most, parts, torch.Generator().manual_seed(random_state))


class Counting(Discoverer):
    """A discoverer that is told how many classes there are, or clusters rows for several numbers before."""

    by: By = "hidden-classes"

    def _counted(
        self, x: Tensor, labels: Tensor, generator: torch.Generator, *, unit: bool = True
    ) -> tuple[int, tuple[int, int] | None]:
        """The number of classes: the given one, or an estimate with the least and the largest of its parts."""
        if self.classes != "auto":
            return self.classes, None
        found = number_of_classes(x, labels, self.by, None, 5, generator, unit=unit)
        return found.count, (min(found.low, found.count), max(found.high, found.count))


def number_of_classes(
    x: Tensor,
    labels: Tensor,
    by: By,
    most: int | None,
    parts: int,
    generator: torch.Generator,
    *,
    unit: bool = True,
) -> ClassNumber:
    """`class_number` of rows and labels that have been checked; with the length that rows have unless `unit`."""
    known = int(labels.max()) + 1
    free = int((labels < 0).sum())
    if most is None:
        most = 3 * known + 10
    if most < known:
        raise ConfigError(f"most must be {known} or more, the number of known classes; found {most}")
    z = reduced(x, COMPONENTS, unit=unit)
    share = min(1.0, max(0.5, 60 / len(z)), ROWS / len(z))
    last = min(most, known + int(share * free) - 1)
    numbers = _tried(known, max(known, last))
    scores = {
        "labelled-rows": _by_labelled,
        "hidden-classes": _by_hidden,
        "silhouette": _by_silhouette,
        "prototypes": _by_prototypes,
    }
    score = scores[by]
    found = []
    for _ in range(parts):
        index = _part(labels, share, generator)
        found.append(score(z[index], labels[index], numbers, generator))
    # [parts, curves, numbers]
    table = torch.tensor(found, dtype=torch.float64)
    tried = torch.tensor(numbers, dtype=torch.float64)
    mean = table.mean(0)
    count, *each = (math.floor(float(_best(curves, tried).mean()) + 0.5) for curves in (mean, *table))
    return ClassNumber(
        count, min(count, *each), max(count, *each), dict(zip(numbers, mean.sum(0).tolist(), strict=True))
    )


def _best(curves: Tensor, tried: Tensor) -> Tensor:
    """The number with the largest score of each curve `[curves]`; the mean of those that are as good as any.

    The accuracy of classes far apart is that of one cluster each from few clusters on, and stays so for a while.
    """
    top = (curves == curves.amax(1, keepdim=True)).double()
    return top @ tried / top.sum(1)


def _tried(first: int, last: int) -> list[int]:
    """All numbers from the first to the last, or as many evenly spaced ones as are tried at most."""
    count = min(last - first + 1, MOST)
    return [first + round(i * (last - first) / max(1, count - 1)) for i in range(count)]


def _part(labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Positions of a share of the rows, of each known class and of those without; two of each class at least."""
    kept = []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        count = min(len(members), max(2, round(share * len(members))))
        kept.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(kept).sort().values


def _by_silhouette(z: Tensor, labels: Tensor, numbers: list[int], generator: torch.Generator) -> list[list[float]]:
    free = labels < 0
    distances = torch.cdist(z[free], z)

    def score(count: int) -> float:
        groups = pinned_kmeans(z, count, labels, starts=2, generator=generator).assignment
        return float(_silhouettes(distances, groups[free], groups).mean())

    return [[score(count) for count in numbers]]


def _by_labelled(z: Tensor, labels: Tensor, numbers: list[int], generator: torch.Generator) -> list[list[float]]:
    seen = labels >= 0

    def score(count: int) -> float:
        tries = [kmeans(z, count, generator=generator) for _ in range(2)]
        groups = min(tries, key=lambda each: float((z - each.centres[each.assignment]).square().sum())).assignment
        return clustering_accuracy(groups[seen].numpy(), labels[seen].numpy()).all

    return [[score(count) for count in numbers], *_by_silhouette(z, labels, numbers, generator)]


def _by_hidden(z: Tensor, labels: Tensor, numbers: list[int], generator: torch.Generator) -> list[list[float]]:
    known = int(labels.max()) + 1
    order = torch.randperm(known, generator=generator)
    hidden = order[: max(1, known // 2)]
    # What stays known is numbered anew, without a gap.
    renamed = torch.full((known + 1,), -1)
    renamed[order[len(hidden) :].sort().values] = torch.arange(known - len(hidden))
    seen = renamed[labels]
    played = torch.isin(labels, hidden)

    def score(count: int) -> float:
        groups = pinned_kmeans(z, count, seen, starts=2, generator=generator).assignment
        return clustering_accuracy(groups[played].numpy(), labels[played].numpy()).all

    return [[score(count) for count in numbers], *_by_silhouette(z, labels, numbers, generator)]


def _by_prototypes(z: Tensor, labels: Tensor, numbers: list[int], generator: torch.Generator) -> list[list[float]]:
    held = torch.zeros_like(labels, dtype=torch.bool)
    for c in range(int(labels.max()) + 1):
        members = (labels == c).nonzero().flatten()
        count = min(math.ceil(len(members) / 5), len(members) - 1)
        held[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    seen = torch.where(held, -1, labels)
    free = labels < 0
    distances = torch.cdist(z[free], z)

    def score(count: int) -> float:
        found = pinned_kmeans(z, count, seen, starts=2, generator=generator)
        p = (z[held] @ torch.nn.functional.normalize(found.centres).T / 0.1).softmax(1)
        sure = float(p.gather(1, labels[held, None]).mean()) if bool(held.any()) else 0.0
        groups = found.assignment
        return sure + float(_silhouettes(distances, groups[free], groups).mean())

    return [[score(count) for count in numbers]]


def _silhouettes(distances: Tensor, own: Tensor, groups: Tensor) -> Tensor:
    """Silhouettes of M rows among N: distances `[M, N]`, the groups of the M and of the N; 0 for a row alone."""
    count = int(groups.max()) + 1
    member = torch.nn.functional.one_hot(groups, count).to(distances.dtype)
    sizes = member.sum(0)
    sums = distances @ member
    inside = sums.gather(1, own[:, None])[:, 0] / (sizes[own] - 1).clamp_min(1)
    others = sums / sizes
    others.scatter_(1, own[:, None], torch.inf)
    others[:, sizes == 0] = torch.inf
    outside = others.amin(1)
    widths = (outside - inside) / torch.maximum(outside, inside).clamp_min(1e-12)
    return torch.where((sizes[own] > 1) & outside.isfinite(), widths, 0.0)
