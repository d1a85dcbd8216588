"""ICNN loss: neighbours of the own class near, those of other classes far, and both alike."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from repertoire.losses.contracts._base import EmbeddingLoss, check_embeddings
from repertoire.losses.contracts._classes import at_least_float32
from repertoire.losses.contracts._positives import group, mean_over, poison
from repertoire.ops import pair_topk
from repertoire.ranges import AtLeast, checked
from repertoire.registry import register

__all__ = ["ICNN", "icnn_loss"]

Combine = Literal["product", "mean"]


@checked
def icnn_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    neighbours: Annotated[int, AtLeast(2)] = 5,
    combine: Combine = "product",
    root: Annotated[float, AtLeast(1)] = 2.0,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
) -> Tensor:
    r"""ICNN loss: minus the logarithm of how well the nearest neighbours of each row tell its class.

    Mendez-Ruiz et al., *SuSana Distancia is all you need: Enforcing class separability in metric learning via two novel
    distance-based loss functions for few-shot image classification* (2023). Of the k nearest neighbours of row i, at
    distances e scaled to [0, 1] among them, S are those of its class and D the others:

    .. math::
        \begin{aligned}
        \lambda_i &= \tfrac{1}{k} \Bigl(\sum_{j \in S} (1 - e_{ij}) + \sum_{j \in D} e_{ij}\Bigr), \qquad
        \omega_i = 1 - \mathrm{Var}_S(e_i) - \mathrm{Var}_D(e_i), \qquad \gamma_i = |S| / k \\
        \ell &= -\log \tfrac{1}{N} \sum_i (\lambda_i\, \omega_i\, \gamma_i)^{1/r}
        \end{aligned}

    The share gamma has no gradient, and weighs the rows instead. The released code drops the spread omega and takes the
    mean of lambda and gamma, which is `combine="mean"`; it also scales the distances by that of the nearest row of
    another class, which is not offered here.

    No pair is ever stored but the k of each row: memory is O(Nk + Nd).

    Args:
        embeddings: float `[N, d]`. Distances are Euclidean; their scale does not matter.
        labels: int64 `[N]` of any values.
        neighbours: k, 2 or more, about the number of rows of a class; fewer are taken where there are fewer.
        combine: "product" of the three terms (default), or "mean" of lambda and gamma without roots.
        root: r, 1 or more: the larger, the less a bad row counts.
        reference: float `[M, d]`, where neighbours are looked for in place of the embeddings: a support set.
        reference_labels: int64 `[M]`.

    Returns:
        A scalar, 0 or more, from the rows with another row of their class; float32 for half-precision embeddings. Zero,
        with a zero gradient, if there is none.

    Raises:
        ShapeError: shapes or dtypes that do not fit.
        ConfigError: options out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import icnn_loss
        >>> x = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
        >>> icnn_loss(x, torch.tensor([0, 0, 1, 1]), neighbours=3)  # lambda and omega are 1, gamma is 1/3
        tensor(0.5493)
    """
    check_embeddings(embeddings, labels, reference, reference_labels)
    groups = group(labels, reference_labels)
    x = at_least_float32(embeddings)
    y = None if reference is None else at_least_float32(reference)
    near = pair_topk(x, y, neighbours, largest=False, similarity="euclidean", exclude_self=y is None)
    there = near.indices >= 0
    kin = torch.cat([groups.other, groups.other.new_full((1,), -1)])[near.indices] == groups.own[:, None]
    distances = near.values.masked_fill(~there, 0.0)
    least, most = distances[:, :1], distances.amax(1, keepdim=True)
    spread = (most - least).clamp_min(torch.finfo(x.dtype).tiny ** 0.5)
    scaled = (distances - least) / spread
    k = there.sum(1).clamp_min(1)
    closeness = torch.where(kin, 1 - scaled, scaled).masked_fill(~there, 0.0).sum(1) / k
    share = kin.to(x).sum(1) / k
    if combine == "mean":
        scores = (closeness + share) / 2
    else:
        variance = _variance(scaled, kin) + _variance(scaled, there & ~kin)
        # Roots have an infinite slope at zero.
        scores = (closeness * (1 - variance) * share).clamp_min(1e-6) ** (1 / root)
    score = mean_over(scores, groups.anchors)
    return -torch.where(groups.anchors.any(), score, score + 1).clamp_min(1e-6).log() + poison(x, y)


def _variance(values: Tensor, chosen: Tensor) -> Tensor:
    """Population variance of the chosen values of each row; zero where fewer than two are."""
    count = chosen.sum(1, keepdim=True).clamp_min(1)
    mean = values.masked_fill(~chosen, 0.0).sum(1, keepdim=True) / count
    return ((values - mean).square().masked_fill(~chosen, 0.0) / count).sum(1)


@register("losses", "icnn", paper="susana-distancia")
class ICNN(EmbeddingLoss, function=icnn_loss):
    """Module form of `icnn_loss`."""
