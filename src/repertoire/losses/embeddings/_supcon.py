"""SupCon: supervised contrastive loss."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.losses.contracts._base import EmbeddingLoss, check_embeddings
from repertoire.losses.contracts._positives import warn_if_none
from repertoire.ops import class_index, class_sums, pair_logsumexp, unit_rows
from repertoire.ranges import Positive, checked
from repertoire.registry import register

__all__ = ["SupCon", "supcon_loss"]


@checked
def supcon_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    temperature: Annotated[float, Positive] = 0.1,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
) -> Tensor:
    r"""Supervised contrastive loss: rows of a label attract each other and repel all others.

    Khosla et al., *Supervised Contrastive Learning* (2020), with the sum over positives outside the logarithm (L_out).
    With z the embeddings scaled to unit length, P(i) the other rows with the label of i and A(i) all other rows:

    .. math::
        \ell_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)}
            \log \frac{\exp(z_i \cdot z_p / \tau)}{\sum_{a \in A(i)} \exp(z_i \cdot z_a / \tau)}

    The loss is the mean over the rows with a positive. The paper writes the sum over the batch; its code takes the mean
    over all rows and multiplies by the ratio of two temperatures, by default 1. With two views of every sample each row
    has a positive, and the three differ by a constant factor.

    With a reference set the rows of `embeddings` are compared with its rows only: both P(i) and A(i) lie in it. It gets
    gradients if it wants them.

    No pair is ever stored: the denominators are streamed (:func:`repertoire.ops.pair_logsumexp`), and the positives
    need only the sum of each class. Memory is O((N + M) d), time that of about two products of all pairs.

    Args:
        embeddings: float `[N, d]` of any length; for two views of a batch, both one after the other.
        labels: int64 `[N]` of any values, compared for equality only: rows that share a label such as -1 are positives
            of each other.
        temperature: tau, positive; the paper uses 0.1.
        reference: float `[M, d]`, a memory queue or another rank's batch.
        reference_labels: int64 `[M]`.

    Returns:
        A scalar; float32 for half-precision embeddings. Zero, with a zero gradient, if no row has a positive (which is
        warned about once, where the labels are on the CPU). A zero embedding is orthogonal to everything.

    Raises:
        ShapeError: shapes or dtypes that do not fit.
        ConfigError: the temperature is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import supcon_loss
        >>> supcon_loss(torch.eye(4), torch.tensor([0, 0, 1, 1]))  # three equally similar rows: log 3
        tensor(1.0986)
    """
    check_embeddings(embeddings, labels, reference, reference_labels)
    scale = 1.0 / temperature
    z = unit_rows(embeddings)
    if reference is None or reference_labels is None:
        index, counts = class_index(labels)
        positives = (counts - 1).clamp_min(0)
        weight = _class_weights(positives, counts, z.dtype)
        # Summed over a class, z_i . (S - z_i) is |S|² less the squared lengths of its rows, which are constant.
        lengths = torch.linalg.vector_norm(z.detach(), dim=1)
        sums = class_sums(z, index, len(counts))
        attraction = (weight * sums.square().sum(1)).sum() - (weight[index] * lengths.square()).sum()
        lse = pair_logsumexp(z, scale=scale, bound=scale, exclude_self=True)
    else:
        y = unit_rows(reference)
        index, everything = class_index(torch.cat([labels, reference_labels]))
        index, y_index = index.split([len(labels), len(reference_labels)])
        positives = torch.zeros_like(everything).scatter_add_(0, y_index, torch.ones_like(y_index))
        weight = _class_weights(positives, everything - positives, z.dtype)
        sums, y_sums = class_sums(z, index, len(positives)), class_sums(y, y_index, len(positives))
        attraction = (weight * (sums * y_sums).sum(1)).sum()
        lse = pair_logsumexp(z, y, scale=scale, bound=scale)
    # Per class the weight is 1 / (anchors |P|); times |P| it weighs the denominators of the class's rows.
    anchor = (weight * positives)[index]
    repulsion = (anchor * lse.masked_fill(anchor == 0, 0.0)).sum()
    return repulsion - scale * attraction


def _class_weights(positives: Tensor, anchors: Tensor, dtype: torch.dtype) -> Tensor:
    """1 / (positives of a row x rows with a positive) for each class, 0 for a class without positives."""
    total = (anchors * (positives > 0)).sum()
    if anchors.device.type == "cpu" and not torch.compiler.is_compiling() and len(anchors) and int(anchors.sum()):
        warn_if_none(anchors * positives > 0)
    weight = (positives * total).clamp_min(1).to(dtype).reciprocal()
    return weight.masked_fill(positives == 0, 0.0)


@register("losses", "supcon", paper="supcon")
class SupCon(EmbeddingLoss, function=supcon_loss):
    """Module form of `supcon_loss`."""

    views = 2
