"""Proto-Triplet loss: nearer to the own class's prototype than to any other, by a margin."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.losses.contracts._base import EmbeddingLoss, check_embeddings
from repertoire.losses.contracts._classes import at_least_float32
from repertoire.losses.contracts._positives import group, mean_over, poison
from repertoire.ops import class_sums, pair_min
from repertoire.ranges import Positive, checked
from repertoire.registry import register

__all__ = ["ProtoTriplet", "proto_triplet_loss"]


@checked
def proto_triplet_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    margin: Annotated[float, Positive] = 0.5,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
) -> Tensor:
    r"""Proto-Triplet loss: a row should be nearer to the prototype of its class than to any other, by a margin.

    Mendez-Ruiz et al., *SuSana Distancia is all you need: Enforcing class separability in metric learning via two novel
    distance-based loss functions for few-shot image classification* (2023). With prototypes c, the means of the support
    set's classes:

    .. math:: \ell_i = \bigl[\lVert x_i - c_{y_i} \rVert - \min_{k \ne y_i} \lVert x_i - c_k \rVert + m\bigr]_+

    The reference set is the support set, the embeddings are the queries of an episode. Without a support set, each row
    is a query to the means of all others: its own prototype is that of its class without it.

    The nearest other prototype is found tile by tile: memory is O((N + K) d), not NK.

    Args:
        embeddings: float `[N, d]`, the queries. Distances are Euclidean, and lengths count.
        labels: int64 `[N]` of any values.
        margin: m, positive; the released code uses 0.5.
        reference: float `[M, d]`, the support set.
        reference_labels: int64 `[M]`.

    Returns:
        A scalar, the mean over the queries with a prototype of their class; float32 for half-precision embeddings.
        Zero, with a zero gradient, if there is none, or if there is one class only.

    Raises:
        ShapeError: shapes or dtypes that do not fit.
        ConfigError: the margin is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import proto_triplet_loss
        >>> support = {"reference": torch.tensor([[0.0], [2.5]]), "reference_labels": torch.tensor([0, 1])}
        >>> proto_triplet_loss(torch.tensor([[1.0]]), torch.tensor([0]), margin=1.0, **support)
        tensor(0.5000)
    """
    check_embeddings(embeddings, labels, reference, reference_labels)
    groups = group(labels, reference_labels)
    x = at_least_float32(embeddings)
    support = x if reference is None else at_least_float32(reference)
    sums, counts = class_sums(support, groups.other, len(groups.counts)), groups.counts.to(x)
    own, sizes = sums[groups.own], counts[groups.own]
    if groups.within:
        own, sizes = own - x, sizes - 1
    # The norm has the gradient zero where it is zero.
    distance = torch.linalg.vector_norm(x - own / sizes.clamp_min(1)[:, None], dim=1)
    others = pair_min(
        x,
        sums / counts.clamp_min(1)[:, None],
        similarity="euclidean",
        pairs="different",
        groups=groups.own,
        y_groups=torch.arange(len(counts), device=x.device),
        mask=lambda tile, rows, columns: (counts[columns] > 0).expand(tile.shape),
    )
    return mean_over((distance - others.values + margin).relu(), groups.anchors) + poison(x, support)


@register("losses", "proto-triplet", paper="susana-distancia")
class ProtoTriplet(EmbeddingLoss, function=proto_triplet_loss):
    """Module form of `proto_triplet_loss`."""
