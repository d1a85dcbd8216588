"""Decoupled uniformity: the means of the views of each sample spread out, smoothed by what is known beforehand."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._views import check_views, full_precision
from repertoire.ops import pair_logsumexp, unit_rows
from repertoire.ranges import Positive, checked
from repertoire.registry import register

__all__ = ["DecoupledUniformity", "PriorKernel", "decoupled_uniformity_loss"]

PriorKernel = Literal["gaussian", "cosine"]


@checked
def decoupled_uniformity_loss(
    *views: Tensor,
    prior: Tensor | None = None,
    t: Annotated[float, Positive] = 2.0,
    kernel: PriorKernel = "gaussian",
    bandwidth: Annotated[float, Positive] = 1.0,
    ridge: Annotated[float, Positive] = 1e-4,
) -> Tensor:
    r"""Decoupled uniformity: the mean views of different samples far apart, which they are only if the views agree.

    Dufumier et al., *Integrating Prior Knowledge in Contrastive Learning with Kernel* (2023). With :math:`\mu_i` the
    mean of the views of sample i, each scaled to unit length:

    .. math:: \log \frac{1}{N (N - 1)} \sum_{i \ne j} \exp(-t \lVert \mu_i - \mu_j \rVert^2)

    There is no term that pulls the views together: the means can only be far apart if they are long, and they are long
    only if the views agree. Unlike in NT-Xent, no positive stands against a negative.

    Prior knowledge about the samples (attributes, features of a generative model) makes each mean one over similar
    samples too, by kernel ridge regression: with the kernel matrix K of the prior,

    .. math:: \hat\mu = (K + N \lambda I)^{-1} K \mu

    through whose weights no gradient flows. The released code adds lambda without N. The smoothing takes O(N³) time and
    O(N²) memory for a batch of N; without a prior no matrix of pairs is made.

    Args:
        views: two or more tensors, float `[N, d]`; row i of each is the same sample.
        prior: float or integer `[N, p]` or `[N]`, what is known about the samples.
        t: sharpness of the potential, positive; 2 in the paper.
        kernel: of the prior: "gaussian", :math:`\exp(-\lVert a - b \rVert^2 / 2 h^2)`, or "cosine".
        bandwidth: h, positive.
        ridge: lambda, positive.

    Returns:
        A scalar in [-4t, 0]; float32 for half-precision embeddings; zero, with a zero gradient, for fewer than two
        samples.

    Raises:
        ShapeError: fewer than two views, views of different shapes or dtypes, or a prior of another number of samples.
        ConfigError, ValueError: an argument out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import decoupled_uniformity_loss
        >>> decoupled_uniformity_loss(torch.eye(3), torch.eye(3))  # every squared distance is 2
        tensor(-4.)
        >>> decoupled_uniformity_loss(torch.eye(3), -torch.eye(3))  # views that disagree: all means are 0
        tensor(0.)
    """
    check_views(views)
    samples = len(views[0])
    if prior is not None and (prior.ndim not in (1, 2) or len(prior) != samples):
        raise ShapeError(f"prior must be [{samples}, p] or [{samples}], one row a sample, found {list(prior.shape)}")
    with full_precision(*views) as z:
        means = torch.stack([unit_rows(view) for view in z]).mean(0)
        if samples < 2:
            return 0.0 * means.sum()
        if prior is not None:
            means = _smoothing(prior.detach().to(means.dtype).reshape(samples, -1), kernel, bandwidth, ridge) @ means
        potential = pair_logsumexp(means, similarity="sqeuclidean", scale=-t, exclude_self=True)
        return potential.logsumexp(0) - math.log(samples * (samples - 1))


def _smoothing(prior: Tensor, kernel: PriorKernel, bandwidth: float, ridge: float) -> Tensor:
    """The weights of kernel ridge regression, `[N, N]`."""
    if kernel == "cosine":
        unit = unit_rows(prior)
        gram = unit @ unit.T
    else:
        # The product form of cdist loses half of the digits of a small distance.
        distances = torch.cdist(prior, prior, compute_mode="donot_use_mm_for_euclid_dist")
        gram = torch.exp(-distances.square() / (2 * bandwidth**2))
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + len(gram) * ridge * identity, gram)


@register("losses", "decoupled-uniformity", paper="decoupled-uniformity")
class DecoupledUniformity(ViewsLoss, function=decoupled_uniformity_loss):
    """Module form of `decoupled_uniformity_loss`."""
