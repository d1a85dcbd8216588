"""Contrastive losses that correct for what negatives are: some of them are of the anchor's class, some are easy."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._views import check_views, full_precision, similarities_of_views
from repertoire.ops import pair_logsumexp, unit_rows
from repertoire.ranges import AtLeast, Between, Positive, checked
from repertoire.registry import register

__all__ = ["DebiasedContrastive", "debiased_contrastive_loss"]


@checked
def debiased_contrastive_loss(
    *views: Tensor,
    class_prior: Annotated[float, Between(0, 1, "[)")] = 0.1,
    hardness: Annotated[float, AtLeast(0)] = 0.0,
    temperature: Annotated[float, Positive] = 0.5,
) -> Tensor:
    r"""Contrastive loss that takes out of its negatives what is expected to be of the anchor's class.

    Chuang et al., *Debiased Contrastive Learning* (2020). A random negative is of the anchor's class with probability
    :math:`\tau^+`, the share of a class; what such negatives add is estimated from the positives and subtracted. With z
    scaled to unit length, the N embeddings u of other samples and the M other views v of the anchor's sample:

    .. math:: g_i = \max\left(\frac{1}{1 - \tau^+} \Big(\frac1N \sum_u e^{z_i \cdot u / t} - \frac{\tau^+}{M} \sum_v
        e^{z_i \cdot v / t}\Big),\ e^{-1/t}\right)
    .. math:: \ell_i = -\frac1M \sum_v \log \frac{e^{z_i \cdot v / t}}{e^{z_i \cdot v / t} + N g_i}

    The loss is the mean over the embeddings of all views. With a hardness :math:`\beta` the negatives are weighted by
    :math:`e^{\beta z_i \cdot u / t}`, so that similar ones count more: Robinson et al., *Contrastive Learning with Hard
    Negative Samples* (2021). With a prior and a hardness of 0 it is NT-Xent.

    Args:
        views: two or more tensors, float `[N, d]`; row i of each is the same sample.
        class_prior: :math:`\tau^+` in [0, 1); about one over the number of classes.
        hardness: beta, 0 or more; Robinson et al. use 0.5 to 2.
        temperature: t, positive; 0.5 in the paper.

    Returns:
        A scalar; float32 for half-precision embeddings; zero, with a zero gradient, for fewer than two samples.

    Raises:
        ShapeError: fewer than two views, or views of different shapes or dtypes.
        ConfigError: an argument out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import debiased_contrastive_loss
        >>> x = torch.eye(2)
        >>> debiased_contrastive_loss(x, x, class_prior=0.0, temperature=1.0)  # log(e + 1 + 1) - 1
        tensor(0.5514)
        >>> debiased_contrastive_loss(x, x, class_prior=0.1, temperature=1.0)
        tensor(0.4671)
    """
    check_views(views)
    count, samples = len(views), len(views[0])
    scale = 1.0 / temperature
    with full_precision(*views) as z:
        x = unit_rows(torch.cat(z))
        if samples < 2:
            return 0.0 * x.sum()
        positives = scale * similarities_of_views(x, count)
        own = torch.arange(samples, device=x.device).repeat(count)
        negatives = pair_logsumexp(x, scale=scale, bound=scale, pairs="different", groups=own)
        log_number = math.log(count * (samples - 1))
        if hardness:
            # Weights of mean one, of which the weighted sum is a ratio of two sums.
            weights = pair_logsumexp(x, scale=hardness * scale, bound=hardness * scale, pairs="different", groups=own)
            harder = (1 + hardness) * scale
            negatives = pair_logsumexp(x, scale=harder, bound=harder, pairs="different", groups=own)
            negatives = negatives - weights + log_number
        if class_prior:
            expected = positives.logsumexp(1) - math.log(count - 1) + math.log(class_prior) + log_number
            # A difference of exponentials, in logarithms; where it is not positive the floor below stands in.
            left = expected < negatives
            ratio = (expected - negatives).where(left, -1.0)
            rest = (negatives + torch.log1p(-ratio.exp())).where(left, -torch.inf) - math.log1p(-class_prior)
            negatives = rest.clamp_min(log_number - scale)
        return (torch.logaddexp(positives, negatives[:, None]) - positives).mean()


@register("losses", "debiased-contrastive", paper="dcl")
class DebiasedContrastive(ViewsLoss, function=debiased_contrastive_loss):
    """Module form of `debiased_contrastive_loss`."""
