"""Fisher's ratio: how far classes are apart for how wide they are."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from repertoire.diagnostics._stream import Features, class_moments
from repertoire.registry import register

__all__ = ["fisher_ratio"]


@register("diagnostics", "fisher-ratio")
@torch.no_grad()
def fisher_ratio(features: Features, labels: Tensor | np.ndarray | None = None) -> float:
    r"""The variance between classes over that within them; higher is better separated.

    The trace form of the ratio of Fisher, *The Use of Multiple Measurements in Taxonomic Problems* (1936):

    .. math:: \frac{\sum_k n_k \lVert \mu_k - \mu \rVert^2}{\sum_i \lVert z_i - \mu_{y_i} \rVert^2}

    Unlike NC1 it does not weigh directions by the inverse of the variance between classes, so it can be told from few
    samples. One pass in double precision: time O(Nd²), memory O(d²).

    Args:
        features: float `[N, d]`, in memory or not: see :func:`repertoire.diagnostics.eigenvalue_spectrum`.
        labels: integers `[N]`, of any value.

    Returns:
        0 or more; 0 if all features are the same, infinite if they differ between classes only; nan without features.

    Raises:
        ShapeError: shapes or dtypes that do not fit, features and labels of different lengths, or no labels. DataError:
            features that are not finite; their rows are named.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import fisher_ratio
        >>> round(fisher_ratio(torch.tensor([[0.0], [2.0], [4.0], [6.0]]), torch.tensor([0, 0, 1, 1])), 4)
        4.0
    """
    found, _ = class_moments(features, labels)
    if found is None:
        return math.nan
    total = float(found.scatter.diagonal().sum())
    offsets = (found.means - found.mean).square().sum(1)
    between = min(float((found.counts * offsets).sum()), total)
    size = float((found.mean.square() * found.count).sum()) * 1e-24
    if total <= size:
        return 0.0
    return between / (total - between) if total - between > 1e-13 * total else math.inf
