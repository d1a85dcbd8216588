"""Unilateral aggregation: classes are drawn together, samples of none are kept apart."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.losses.contracts._base import EmbeddingLoss, check_embeddings
from repertoire.losses.contracts._positives import mean_over, poison, warn_if_none
from repertoire.ops import class_index, class_sums, pair_logsumexp, unit_rows
from repertoire.ranges import Positive, checked
from repertoire.registry import register

__all__ = ["UnilateralAggregation", "unilateral_aggregation_loss"]


@checked
def unilateral_aggregation_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    temperature: Annotated[float, Positive] = 0.5,
    weight_temperature: Annotated[float, Positive] | None = 0.5,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
) -> Tensor:
    r"""Draws the rows of each class together, the more the more typical they are, away from all others.

    Wang et al., *Unilaterally Aggregated Contrastive Learning with Hierarchical Augmentation for Anomaly Detection*
    (2023), UniCLR with soft aggregation. All views of normal samples have one label; each virtual outlier (an image
    turned round, say) has a label of its own, which only its views share. So normal samples gather, and outliers
    scatter. With z the embeddings scaled to unit length, P(i) the other rows with the label of i and A(i) all other
    rows:

    .. math::
        \ell_i = -\frac{1}{\sum_{p \in P(i)} w_p} \sum_{p \in P(i)} w_p
            \log \frac{\exp(z_i \cdot z_p / \tau)}{\sum_{a \in A(i)} \exp(z_i \cdot z_a / \tau)}, \qquad
        w_p \propto \sum_{q \in P(p)} \exp(z_p \cdot z_q / \tau_w)

    The loss is the mean over the rows with a positive. The weights take no gradient: a view that augmentation has made
    unlike the others of its class counts for less. A sample of two views that is alone with its label has one positive
    and one weight, which cancels, so that labels of a sample each give NT-Xent; without weights, the loss is SupCon.

    The paper prints the weights inside the logarithm, where, constant as they are, they would weigh nothing; they are
    read as the weights of the pairs. The weight of the anchor, which the paper prints as well, then cancels.

    No pair is ever stored (:func:`repertoire.ops.pair_logsumexp`): memory is O((N + M) d).

    Args:
        embeddings: float `[N, d]` of any length; the views of a batch, one after the other.
        labels: int64 `[N]` of any values, compared for equality only.
        temperature: tau, positive; the paper uses 0.5.
        weight_temperature: tau_w, positive; the paper uses 0.5. None weighs all rows alike.
        reference: float `[M, d]`, a memory queue or another rank's batch; positives and weights are then of its rows.
        reference_labels: int64 `[M]`.

    Returns:
        A scalar; float32 for half-precision embeddings. Zero, with a zero gradient, if no row has a positive.

    Raises:
        ShapeError: shapes or dtypes that do not fit.
        ConfigError: a temperature is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import unilateral_aggregation_loss
        >>> unilateral_aggregation_loss(torch.eye(4), torch.tensor([0, 0, -1, -2]))  # three equally similar rows: log 3
        tensor(1.0986)
    """
    check_embeddings(embeddings, labels, reference, reference_labels)
    scale = 1.0 / temperature
    z = unit_rows(embeddings)
    if reference is None or reference_labels is None:
        index, counts = class_index(labels)
        weights = _weights(z, index, len(counts), weight_temperature)
        sums = class_sums(weights[:, None] * z, index, len(counts))[index] - weights[:, None] * z
        total = _others(weights, index, len(counts))
        lse = pair_logsumexp(z, scale=scale, bound=scale, exclude_self=True)
    else:
        y = unit_rows(reference)
        index, everything = class_index(torch.cat([labels, reference_labels]))
        index, y_index = index.split([len(labels), len(reference_labels)])
        weights = _weights(y, y_index, len(everything), weight_temperature)
        sums = class_sums(weights[:, None] * y, y_index, len(everything))[index]
        total = class_sums(weights[:, None], y_index, len(everything))[index, 0]
        lse = pair_logsumexp(z, y, scale=scale, bound=scale)
    anchors = total > 0
    warn_if_none(anchors)
    attraction = scale * (z * sums).sum(1) / total.masked_fill(~anchors, 1.0)
    return mean_over(lse - attraction, anchors) + poison(embeddings, reference)


def _others(weights: Tensor, index: Tensor, classes: int) -> Tensor:
    """Sum of the weights of the other rows of the class of each row; zero for a row that is alone."""
    summed = class_sums(weights[:, None], index, classes)[index, 0] - weights
    alone = torch.bincount(index, minlength=classes)[index] < 2
    return summed.clamp_min(0).masked_fill(alone, 0.0)


@torch.no_grad()
def _weights(z: Tensor, index: Tensor, classes: int, temperature: float | None) -> Tensor:
    """How typical of its class each row is, up to a factor that a class has in common; 1 for a row that is alone."""
    if temperature is None or not len(z):
        return torch.ones_like(z[:, 0])
    scale = 1.0 / temperature
    alike = pair_logsumexp(z.detach(), scale=scale, bound=scale, exclude_self=True, pairs="same", groups=index)
    alike = alike.masked_fill(alike == -torch.inf, 0.0)
    largest = alike.new_full((classes,), -torch.inf).scatter_reduce(0, index, alike, "amax")
    return (alike - largest[index]).exp()


@register("losses", "unilateral-aggregation", paper="unicon-ha")
class UnilateralAggregation(EmbeddingLoss, function=unilateral_aggregation_loss):
    """Module form of `unilateral_aggregation_loss`."""

    views = 2
