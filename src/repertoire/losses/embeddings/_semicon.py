"""SemiCon: contrast of labelled and unlabelled samples in one loss."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.losses.contracts._base import EmbeddingLoss, check_embeddings
from repertoire.losses.embeddings._supcon import _class_weights
from repertoire.ops import class_index, class_sums, pair_logsumexp, unit_rows
from repertoire.ranges import AtLeast, Positive, checked
from repertoire.registry import register

__all__ = ["SemiCon", "semicon_loss"]


@checked
def semicon_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    temperature: Annotated[float, Positive] = 0.1,
    alpha: Annotated[float, AtLeast(0)] = 1.0,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
) -> Tensor:
    r"""Contrastive loss of a batch of which few samples have labels: one denominator, and a weight for the others.

    Michel et al., *Contrastive Learning for Online Semi-Supervised General Continual Learning* (2022). With z the
    embeddings scaled to unit length, M the rows with a label and U those without, P(i) the other rows of the class of i
    in M and the other views of the sample of i in U, and A(i) all other rows, of either:

    .. math::
        \ell = \frac{1}{|M| + |U|} \sum_{i \in M \cup U} \frac{-\alpha_i}{|P(i)|} \sum_{p \in P(i)}
            \log \frac{\exp(z_i \cdot z_p / \tau)}{\sum_{a \in A(i)} \exp(z_i \cdot z_a / \tau)}, \qquad
        \alpha_i = \begin{cases} 1 & i \in M \\ \alpha & i \in U \end{cases}

    Each row has all others in its denominator, so that new samples stay away from remembered classes before anybody
    knows what they are. With labels for all it is :func:`repertoire.losses.supcon_loss`, without any it is alpha times
    NT-Xent; with alpha = 0 rows without a label are negatives and nothing else. A row without a positive adds nothing
    and is not counted.

    No pair is ever stored: see :func:`repertoire.losses.supcon_loss`.

    Args:
        embeddings: float `[N, d]` of any length; for two views of a batch, both one after the other.
        labels: int64 `[N]`. A row without a label has a negative number that the views of its sample share, and no
            other; methods make it of the sample's number.
        temperature: tau, positive.
        alpha: weight of rows without a label, 0 or more.
        reference: float `[M, d]`, what the embeddings are compared with in place of each other.
        reference_labels: int64 `[M]`.

    Returns:
        A scalar; float32 for half-precision embeddings. Zero, with a zero gradient, if no row has a positive.

    Raises:
        ShapeError: shapes or dtypes that do not fit.
        ConfigError: a temperature that is not positive, or a negative alpha.

    Example:
        >>> import torch
        >>> from repertoire.losses import semicon_loss
        >>> z = torch.eye(6)
        >>> labels = torch.tensor([4, 4, -1, -1, -2, -2])  # a class, and two views of each of two samples
        >>> round(float(semicon_loss(z, labels, alpha=0.5) / torch.tensor(5.0).log()), 3)  # (1 + 1 + 4 / 2) / 6
        0.667
    """
    check_embeddings(embeddings, labels, reference, reference_labels)
    scale = 1.0 / temperature
    z = unit_rows(embeddings)
    if reference is None or reference_labels is None:
        index, counts = class_index(labels)
        positives, anchors = (counts - 1).clamp_min(0), counts
    else:
        index, everything = class_index(torch.cat([labels, reference_labels]))
        index, y_index = index.split([len(labels), len(reference_labels)])
        positives = torch.zeros_like(everything).scatter_add_(0, y_index, torch.ones_like(y_index))
        anchors = everything - positives
    without = torch.zeros_like(positives, dtype=torch.bool).scatter_(0, index, labels < 0)
    weight = _class_weights(positives, anchors, z.dtype)
    weight = torch.where(without, alpha * weight, weight)
    sums = class_sums(z, index, len(positives))
    if reference is None:
        # Summed over a class, z_i . (S - z_i) is |S|² less the squared lengths of its rows, which are constant.
        lengths = torch.linalg.vector_norm(z.detach(), dim=1)
        attraction = (weight * sums.square().sum(1)).sum() - (weight[index] * lengths.square()).sum()
        lse = pair_logsumexp(z, scale=scale, bound=scale, exclude_self=True)
    else:
        y = unit_rows(reference)
        attraction = (weight * (sums * class_sums(y, y_index, len(positives))).sum(1)).sum()
        lse = pair_logsumexp(z, y, scale=scale, bound=scale)
    anchor = (weight * positives)[index]
    repulsion = (anchor * lse.masked_fill(anchor == 0, 0.0)).sum()
    return repulsion - scale * attraction


@register("losses", "semicon", paper="semicon")
class SemiCon(EmbeddingLoss, function=semicon_loss):
    """Module form of `semicon_loss`."""

    views = 2
