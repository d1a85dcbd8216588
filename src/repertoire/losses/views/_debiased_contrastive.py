"""Contrastive losses that correct for what negatives are: some of them are of the anchor's class, some are easy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._positives import check_temperature
from repertoire.losses.contracts._views import check_views, check_weights, full_precision, similarities_of_views
from repertoire.ops import pair_logsumexp, unit_rows
from repertoire.registry import register

__all__ = ["DebiasedContrastive", "debiased_contrastive_loss"]


def debiased_contrastive_loss(
    *views: Tensor, class_prior: float = 0.1, hardness: float = 0.0, temperature: float = 0.5
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
        ValueError: an argument out of range.

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
    _check(class_prior, hardness, temperature)
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


def _check(class_prior: float, hardness: float, temperature: float) -> None:
    check_temperature(temperature)
    check_weights(hardness=hardness)
    if not 0 <= class_prior < 1:
        raise ValueError(f"class_prior must be in [0, 1), found {class_prior}")


@register("losses", "debiased-contrastive", paper="dcl")
class DebiasedContrastive(ViewsLoss):
    r"""Contrastive loss that takes out of its negatives what is expected to be of the anchor's class.

    The module form of :func:`repertoire.losses.debiased_contrastive_loss`, which gives the paper and the formula.

    Args:
        class_prior: share of a class in [0, 1); about one over the number of classes.
        hardness: how much more similar negatives count, 0 or more.
        temperature: positive; 0.5 in the paper.

    Shapes:
        two or more views, each float `[N, d]`.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import DebiasedContrastive
        >>> DebiasedContrastive(class_prior=0.1, temperature=1.0)(torch.eye(2), torch.eye(2))
        tensor(0.4671)
    """

    def __init__(self, class_prior: float = 0.1, hardness: float = 0.0, temperature: float = 0.5) -> None:
        super().__init__()
        _check(class_prior, hardness, temperature)
        self.class_prior = class_prior
        self.hardness = hardness
        self.temperature = temperature

    def forward(self, *views: Tensor) -> Tensor:
        """The loss of two or more views `[N, d]`."""
        return debiased_contrastive_loss(
            *views, class_prior=self.class_prior, hardness=self.hardness, temperature=self.temperature
        )
