"""Uniformity of features on the unit sphere, as a Wasserstein distance."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from repertoire.diagnostics._stream import Features, whole
from repertoire.losses import wasserstein_uniformity_loss
from repertoire.registry import register

__all__ = ["wasserstein_uniformity"]


@register("diagnostics", "wasserstein-uniformity", paper="wasserstein-uniformity")
@torch.no_grad()
def wasserstein_uniformity(features: Features, labels: Tensor | np.ndarray | None = None) -> float:
    r"""Distance of features from an even spread over the unit sphere; lower is more even.

    Fang et al., *Rethinking The Uniformity Metric in Self-Supervised Learning* (2024): the 2-Wasserstein distance
    between the features scaled to unit length, seen as a Gaussian of their mean :math:`\mu` and covariance
    :math:`\Sigma`, and :math:`\mathcal{N}(0, I/d)`, which stands for the uniform distribution:

    .. math:: \sqrt{\lVert \mu \rVert^2 + 1 + \operatorname{tr}\Sigma - \frac{2}{\sqrt d} \operatorname{tr}\Sigma^{1/2}}

    Unlike :func:`repertoire.diagnostics.uniformity` it sees features that leave dimensions unused. The paper calls its
    negative the uniformity. It looks at moments only: time O(Nd²), no pairs.

    Args:
        features: float `[N, d]`, of any length, in memory or not: see
            :func:`repertoire.diagnostics.eigenvalue_spectrum`. A zero vector stays at the centre of the sphere.
        labels: not looked at; there because all diagnostics are called alike.

    Returns:
        A number in [0, 1.42], the root of 2 if all features are the same; nan without features. With N not much larger
        than d it cannot come near 0.

    Raises:
        ShapeError: features that are no floating point matrix. DataError: a value that is not finite.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import wasserstein_uniformity
        >>> x = torch.randn(5000, 8, generator=torch.Generator().manual_seed(0))
        >>> round(wasserstein_uniformity(x), 2), round(wasserstein_uniformity(x * (torch.arange(8) < 4)), 2)
        (0.02, 0.77)
    """
    rows = whole(features)
    return float(wasserstein_uniformity_loss(rows)) if len(rows) else math.nan
