"""Multi-similarity loss: hard positives and hard negatives of each anchor, softly weighted."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.losses.contracts._base import EmbeddingLoss, check_embeddings
from repertoire.losses.contracts._positives import group, mean_over, poison
from repertoire.ops import pair_logsumexp, pair_max, pair_min, unit_rows
from repertoire.ranges import Finite, Positive, checked
from repertoire.registry import register

__all__ = ["MultiSimilarity", "multi_similarity_loss"]


@checked
def multi_similarity_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    alpha: Annotated[float, Positive] = 1.0,
    beta: Annotated[float, Positive] = 50.0,
    threshold: Annotated[float, Finite] = 0.0,
    epsilon: Annotated[float, Finite] | None = 0.1,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
) -> Tensor:
    r"""Multi-similarity loss: each anchor pulls its hard positives and pushes its hard negatives, the hardest most.

    Wang et al., *Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning* (2019), as Ali-bey,
    Chaib-draa and Giguère use it in *GSV-Cities: Toward Appropriate Supervised Visual Place Recognition* (2022). With s
    the cosines of anchor i:

    .. math::
        \ell_i = \frac{1}{\alpha} \log\Bigl(1 + \sum_{p \in P_i} e^{-\alpha (s_{ip} - \lambda)}\Bigr)
               + \frac{1}{\beta} \log\Bigl(1 + \sum_{n \in N_i} e^{\beta (s_{in} - \lambda)}\Bigr)

    Only hard pairs count: positives less similar than the most similar negative plus epsilon, and negatives more
    similar than the least similar positive less epsilon. The loss is the mean over the anchors with a positive.

    The defaults are those of GSV-Cities' code. Wang et al. use alpha 2, beta 50, threshold 1 and epsilon 0.1.

    No pair is ever stored: the hardest pairs and both sums are streamed, four passes over all pairs, of which two have
    a gradient.

    Args:
        embeddings: float `[N, d]` of any length.
        labels: int64 `[N]` of any values.
        alpha: how much the hardest positive outweighs the others, positive.
        beta: how much the hardest negative outweighs the others, positive.
        threshold: lambda, the cosine that tells similar from dissimilar, in [-1, 1].
        epsilon: how much easier than the hardest a pair may be; None for all pairs.
        reference: float `[M, d]`, what the embeddings are compared with in place of each other.
        reference_labels: int64 `[M]`.

    Returns:
        A scalar; float32 for half-precision embeddings. Zero, with a zero gradient, if no row has a positive.

    Raises:
        ShapeError: shapes or dtypes that do not fit.
        ConfigError: alpha or beta is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import multi_similarity_loss
        >>> multi_similarity_loss(torch.eye(4), torch.tensor([0, 0, 1, 1]))  # log 2 + log 3 / 50
        tensor(0.7151)
    """
    check_embeddings(embeddings, labels, reference, reference_labels)
    groups = group(labels, reference_labels)
    z = unit_rows(embeddings)
    y = None if reference is None else unit_rows(reference)
    same, different = groups.pairs("same"), groups.pairs("different")
    if epsilon is not None:
        with torch.no_grad():
            least = pair_min(z, y, **same).values - epsilon
            most = pair_max(z, y, **different).values + epsilon
        # The tiles hold the exponents.
        same["mask"] = lambda tile, rows, columns: tile > -alpha * (most[rows, None] - threshold)
        different["mask"] = lambda tile, rows, columns: tile > beta * (least[rows, None] - threshold)
    shift, reach = torch.full_like(z[:, 0], threshold), 1 + abs(threshold)
    positive = pair_logsumexp(z, y, scale=-alpha, bias=alpha * shift, bound=alpha * reach, **same)
    negative = pair_logsumexp(z, y, scale=beta, bias=-beta * shift, bound=beta * reach, **different)
    return mean_over(F.softplus(positive) / alpha + F.softplus(negative) / beta, groups.anchors) + poison(z, y)


@register("losses", "multi-similarity", paper="gsv-cities")
class MultiSimilarity(EmbeddingLoss, function=multi_similarity_loss):
    """Module form of `multi_similarity_loss`."""
