"""InfoNCE on embeddings with labels, with a queue of negatives and positives."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.losses.contracts._base import check_embeddings
from repertoire.losses.contracts._memory import MemoryLoss
from repertoire.losses.contracts._positives import group, mean_over
from repertoire.ops import pair_logsumexp, pair_sum, unit_rows
from repertoire.ranges import Positive, checked
from repertoire.registry import register

__all__ = ["MemoryInfoNCE", "memory_info_nce_loss"]


@checked
def memory_info_nce_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    temperature: Annotated[float, Positive] = 0.07,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
    exclude: Tensor | None = None,
) -> Tensor:
    r"""InfoNCE on embeddings with labels: each positive should be found among the negatives of its anchor.

    Van den Oord et al., *Representation Learning with Contrastive Predictive Coding* (2018), on cosines, with the
    memory of He et al., *Momentum Contrast* (MoCo, 2020), as the reference set. With z the embeddings scaled to unit
    length, P(i) the other rows with the label of i and N(i) those with another label:

    .. math::
        \ell_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)} \log
            \frac{\exp(z_i \cdot z_p / \tau)}{\exp(z_i \cdot z_p / \tau) + \sum_{n \in N(i)} \exp(z_i \cdot z_n / \tau)}

    The loss is the mean over the rows with a positive. The papers have one positive for each anchor; with several, each
    competes with the negatives only, where in :func:`repertoire.losses.supcon_loss` the positives compete with each
    other as well.

    No pair is ever stored: two passes over all pairs are streamed.

    Args:
        embeddings: float `[N, d]` of any length.
        labels: int64 `[N]` of any values: classes, or the numbers of the samples.
        temperature: tau, positive; MoCo uses 0.07.
        reference: float `[M, d]`, what the embeddings are compared with in place of each other.
        reference_labels: int64 `[M]`; a label that occurs nowhere else makes a row a negative of all.
        exclude: int64 `[N]`, the row of the reference that each embedding is not compared with; -1 for none.

    Returns:
        A scalar; float32 for half-precision embeddings. Zero, with a zero gradient, if no row has a positive.

    Raises:
        ShapeError: shapes or dtypes that do not fit.
        ConfigError: the temperature is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import memory_info_nce_loss
        >>> memory_info_nce_loss(torch.eye(4), torch.tensor([0, 0, 1, 1]))  # one positive, two negatives: log 3
        tensor(1.0986)
    """
    check_embeddings(embeddings, labels, reference, reference_labels)
    scale = 1 / temperature
    groups = group(labels, reference_labels)
    positives = groups.positives if exclude is None else groups.positives - (exclude >= 0).long()
    z = unit_rows(embeddings)
    y = None if reference is None else unit_rows(reference)
    negatives = pair_logsumexp(z, y, scale=scale, bound=scale, **groups.pairs("different"))
    # log(1 + exp(negatives - s)) over the positives of a row. A row without negatives has a loss of zero.
    total = pair_sum(
        z,
        y,
        "softplus",
        scale=-scale,
        bias=negatives.clamp_min(torch.finfo(z.dtype).min / 4),
        **groups.pairs("same", exclude=exclude),
    )
    return mean_over(total / positives.clamp_min(1), positives > 0)


@register("losses", "memory-info-nce")
class MemoryInfoNCE(MemoryLoss, function=memory_info_nce_loss):
    """Module form of `memory_info_nce_loss`."""
