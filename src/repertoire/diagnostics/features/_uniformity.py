"""Uniformity of features on the unit sphere."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from repertoire.diagnostics._stream import Features, whole
from repertoire.errors import ConfigError
from repertoire.losses import uniformity_loss
from repertoire.registry import register

__all__ = ["uniformity"]


@register("diagnostics", "uniformity", paper="align-uniform")
@torch.no_grad()
def uniformity(features: Features, labels: Tensor | np.ndarray | None = None, *, t: float = 2.0) -> float:
    r"""Evenness with which features cover the unit sphere; lower is more even.

    Wang and Isola, *Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere* (2020), over all pairs of distinct rows and with z scaled to unit length here:

    .. math:: \log \frac{1}{N (N - 1)} \sum_{i \ne j} \exp(-t \lVert z_i - z_j \rVert_2^2)

    All pairs are counted but never stored: memory is O(Nd), time that of half a matrix product of all pairs.

    Args:
        features: float `[N, d]`, of any length, in memory or not: see
            :func:`repertoire.diagnostics.eigenvalue_spectrum`. A zero vector counts as orthogonal to everything.
        labels: not looked at; there because all diagnostics are called alike.
        t: sharpness of the potential, positive; 2 in the paper.

    Returns:
        A number in [-4t, 0]: 0 when all features are the same, about -2t when they are spread evenly over a sphere of
        many dimensions; nan for fewer than two rows.

    Raises:
        ShapeError: features that are no floating point matrix.
        ConfigError: t is not positive. DataError: a value that is not finite.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import uniformity
        >>> round(uniformity(torch.eye(3)), 4)
        -4.0
    """
    if not t > 0:
        raise ConfigError(f"t must be positive, found {t}")
    rows = whole(features)
    value = float(uniformity_loss(rows, t=t))
    return value if len(rows) > 1 else float("nan")
