"""A small weighted sample that stands in for all data: sensitivity sampling over clusters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.ops import kmeans

__all__ = ["WeightedSample", "sensitivity_sample"]


@dataclass(frozen=True)
class WeightedSample:
    """Samples with weights, of which the weighted sum of losses estimates the mean loss over all data."""

    index: Tensor
    """int64 `[s]`, drawn with replacement: a sample may occur more than once."""
    weight: Tensor
    """float64 `[s]`: the mean loss is estimated by the sum of weight times loss."""
    asked: Tensor
    """int64 `[k]`, the samples whose loss was asked for."""


@torch.no_grad()
def sensitivity_sample(
    features: Tensor,
    loss: Callable[[Tensor], Tensor],
    size: int,
    *,
    clusters: int,
    smoothness: float = 1.0,
    power: float = 2.0,
    generator: torch.Generator | None = None,
) -> WeightedSample:
    r"""Draws a small weighted sample whose loss is that of all data, and asks for the loss of few samples.

    Axiotis et al., *Data-Efficient Learning via Clustering-Based Sensitivity Sampling: Foundation Models and Beyond*
    (2024). Features are clustered, the loss is asked for at the sample nearest to each centre, and samples are drawn
    with a probability that grows with that loss and with their distance to it:

    .. math:: p_i \propto \ell(c_i) + \lambda \lVert z_i - c_i \rVert^z, \qquad w_i = \frac{1}{N s\, p_i}

    so that :math:`\sum_{i \in S} w_i \ell_i` is an unbiased estimate of the mean loss.

    Args:
        features: float `[N, d]`.
        loss: positions int64 `[k]` to losses `[k]`, 0 or more.
        size: s, samples to draw.
        clusters: k in 1..N, and so the number of losses that are asked for.
        smoothness: lambda, 0 or more: how much the loss may change with the distance.
        power: z, positive: 2 for k-means, 1 for a loss that is Lipschitz.
        generator: on the CPU.

    Raises:
        ShapeError: features that are no matrix, or losses that do not fit. ConfigError: an option out of range, or a
            negative or infinite loss.

    Example:
        >>> import torch
        >>> from repertoire.select import sensitivity_sample
        >>> x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
        >>> found = sensitivity_sample(x, lambda index: x[index].square().sum(1), 20, clusters=5)
        >>> len(found.index), len(found.asked)
        (20, 5)
    """
    if size < 1 or not smoothness >= 0 or not power > 0:
        raise ConfigError(
            f"size and power must be positive and smoothness 0 or more, found {size}, {power} and {smoothness}"
        )
    found = kmeans(features, clusters, generator=generator)
    distance = (features.to(found.centres.dtype) - found.centres[found.assignment]).norm(dim=1).double()
    # The sample nearest to each centre speaks for it; a centre that lost its samples speaks for none.
    order = distance.argsort(descending=True)
    nearest = torch.full((clusters,), -1, dtype=torch.int64, device=features.device)
    nearest[found.assignment[order]] = order
    held = nearest >= 0
    asked = nearest[held]
    losses = loss(asked).double().to(distance.device)
    if losses.shape != asked.shape:
        raise ShapeError(f"loss must give one number for each of {len(asked)} positions, found {list(losses.shape)}")
    if not bool((losses >= 0).all()) or not bool(losses.isfinite().all()):
        raise ConfigError("losses must be finite and 0 or more, found one that is not")
    table = torch.zeros(clusters, dtype=torch.float64, device=distance.device)
    table[held] = losses
    score = table[found.assignment] + smoothness * distance**power
    total = score.sum()
    share = score / total if float(total) > 0 else torch.full_like(score, 1 / len(score))
    # By the cumulative sum: multinomial takes no more than 2^24 categories.
    edges = share.cpu().cumsum(0)
    drawn = torch.searchsorted(edges, torch.rand(size, generator=generator, dtype=torch.float64) * edges[-1])
    index = drawn.clamp_max(len(score) - 1).to(features.device)
    return WeightedSample(index, 1 / (len(score) * size * share[index]), asked)
