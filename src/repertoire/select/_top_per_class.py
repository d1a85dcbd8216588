"""The samples that a teacher is surest of, for each class: what a student is pretrained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from repertoire.errors import DataError, ShapeError
from repertoire.ranges import AtLeast, checked

__all__ = ["TopPerClass", "top_k_per_class"]


@dataclass(frozen=True)
class TopPerClass:
    """Samples with the classes that they were chosen for.

    Attributes:
        index: int64 `[M]`, positions, class by class, the highest score first; a sample of several classes is there
            several times.
        labels: int64 `[M]`, the class that each was chosen for.
        scores: float `[M]`.
    """

    index: Tensor
    labels: Tensor
    scores: Tensor


@checked
def top_k_per_class(
    scores: Tensor, k: Annotated[int, AtLeast(1)], *, most: Annotated[int, AtLeast(1)] = 10
) -> TopPerClass:
    """For each class, the K samples that score highest for it: even pseudo-labels of an uneven collection.

    Yalniz, Jégou, Chen, Paluri and Mahajan, *Billion-scale Semi-supervised Learning for Image Classification* (2019). A
    teacher scores a collection without labels. Of each sample only the `most` classes with the highest scores count;
    then every class takes the K samples that score highest for it. A student is pretrained on them, and fine-tuned on
    the samples with labels alone. So many of every class is what a threshold on the score does not give: of classes
    that the teacher is sure of it takes nearly all, and of others none. The paper takes K = 8,000 of each of 1,000
    classes from a billion images, and finds that more is not better: what ranks lower is wrong more often.

    Args:
        scores: float `[N, C]`, finite: probabilities, as in the paper, or logits.
        k: K, samples of each class.
        most: P, classes of each sample that count, 10 in the paper. All of them where there are fewer; 1 keeps each
            sample to the class that it scores highest for.

    Returns:
        The samples and their classes. A class has fewer than K of them where no more samples have it among their
        `most`. Of equal scores the first come first.

    Raises:
        ShapeError: scores of another shape. DataError: scores that are not finite. ConfigError: a number below 1.

    Example:
        >>> import torch
        >>> from repertoire.select import top_k_per_class
        >>> scores = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3]])
        >>> chosen = top_k_per_class(scores, 1)
        >>> chosen.index, chosen.labels  # a threshold would find nothing of the second class
        (tensor([0, 1]), tensor([0, 1]))
    """
    if scores.ndim != 2 or not scores.shape[1] or not scores.is_floating_point():
        raise ShapeError(f"scores must be floating point [N, C], found {scores.dtype} {list(scores.shape)}")
    finite = scores.isfinite()
    if not bool(finite.all()):
        raise DataError(f"scores must be finite; {int((~finite).sum()):,} of {scores.numel():,} are not")
    classes = scores.shape[1]
    by_class = scores.argsort(dim=0, descending=True, stable=True)
    counts = torch.ones_like(by_class, dtype=torch.bool)
    if most < classes:
        by_score = scores.argsort(dim=1, descending=True, stable=True)
        ranks = torch.empty_like(by_score).scatter_(
            1, by_score, torch.arange(classes, device=scores.device).expand_as(by_score)
        )
        counts = ranks.gather(0, by_class) < most
    chosen = counts & (counts.cumsum(0) <= k)
    labels, places = chosen.T.nonzero(as_tuple=True)
    index = by_class[places, labels]
    return TopPerClass(index, labels, scores[index, labels])
