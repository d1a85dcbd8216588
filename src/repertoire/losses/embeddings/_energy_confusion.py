"""Energy confusion: a term that draws classes together, against a loss that drives them apart."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.losses.contracts._added import AddedTerm
from repertoire.losses.contracts._base import EmbeddingLoss, check_embeddings
from repertoire.losses.contracts._positives import full_precision, group
from repertoire.ops import class_sums, unit_rows
from repertoire.registry import register

__all__ = ["EnergyConfusion", "energy_confusion"]


@full_precision
def energy_confusion(
    embeddings: Tensor,
    labels: Tensor,
    *,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
) -> Tensor:
    r"""Energy confusion: the mean squared distance between samples of different classes.

    Chen and Deng, *Energy Confused Adversarial Metric Learning for Zero-Shot Image Retrieval and Clustering* (2019).
    With z the embeddings scaled to unit length and uniform weights over pairs of classes and over their samples:

    .. math:: \mathrm{EC} = \mathbb{E}_{a \ne b}\, \mathbb{E}_{y_i = a,\, y_j = b}\, \lVert z_i - z_j \rVert^2

    Minimised beside a loss that drives classes apart, it keeps a network from relying on what tells apart the classes
    of the training data and no others. It has to be given much less weight than that loss.

    Only the mean of each class is needed: no pair is ever made.

    Args:
        embeddings: float `[N, d]` of any length.
        labels: int64 `[N]` of any values. A row without another one of its label takes no part.
        reference: float `[M, d]`, what the embeddings are compared with in place of each other.
        reference_labels: int64 `[M]`.

    Returns:
        A scalar in 0..4; float32 for half-precision embeddings. Zero, with a zero gradient, if there are no such pairs.

    Raises:
        ShapeError: shapes or dtypes that do not fit.

    Example:
        >>> import torch
        >>> from repertoire.losses import energy_confusion
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> energy_confusion(x, torch.tensor([0, 0, 1, 1]))
        tensor(2.)
    """
    check_embeddings(embeddings, labels, reference, reference_labels)
    groups = group(labels, reference_labels)
    classes = len(groups.counts)
    z = unit_rows(embeddings)
    ones = torch.linalg.vector_norm(z.detach(), dim=1).square() * groups.anchors
    means, squares, there = _moments(z * groups.anchors[:, None], ones, groups.own, groups.anchors.to(z), classes)
    if reference is None:
        others, other_squares, others_there = means, squares, there
    else:
        y = unit_rows(reference)
        lengths = torch.linalg.vector_norm(y.detach(), dim=1).square()
        others, other_squares, others_there = _moments(y, lengths, groups.other, torch.ones_like(lengths), classes)
    # Over all pairs of a class here with a class there, and less those of a class with itself.
    total = squares.sum() * others_there.sum() + other_squares.sum() * there.sum() - 2 * means.sum(0) @ others.sum(0)
    both = there * others_there
    total = total - (both * (squares + other_squares - 2 * (means * others).sum(1))).sum()
    pairs = there.sum() * others_there.sum() - both.sum()
    return total / pairs.clamp_min(1)


def _moments(
    rows: Tensor, squares: Tensor, index: Tensor, weight: Tensor, classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Moments of each class: the mean, the mean of squared lengths, and one where there is a row of it."""
    sizes = weight.new_zeros(classes).index_add(0, index, weight)
    inverse = sizes.clamp_min(1).reciprocal()
    means = class_sums(rows, index, classes) * inverse[:, None]
    return means, squares.new_zeros(classes).index_add(0, index, squares) * inverse, (sizes > 0).to(rows)


@register("losses", "energy-confusion", paper="ecaml")
class EnergyConfusion(  # type: ignore[misc]
    AddedTerm, EmbeddingLoss, function=energy_confusion, base="multi-similarity", weight=0.1
):
    """Module form of `energy_confusion`."""
