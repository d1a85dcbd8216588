"""Number of dimensions that features use."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from repertoire.diagnostics._stream import ROWS, Features, moments
from repertoire.errors import DataError
from repertoire.registry import register

__all__ = ["effective_rank"]

#: Rows that are looked at together: bounds the temporaries.
_ROWS = ROWS


@register("diagnostics", "effective-rank")
@torch.no_grad()
def effective_rank(features: Features, labels: Tensor | None = None) -> float:
    r"""Number of dimensions the features use; far below their width, they have collapsed to a part of the space.

    Roy and Vetterli, *The Effective Rank: A Measure of Effective Dimensionality* (2007), of the centred features, with
    the singular values :math:`\sigma_k`:

    .. math:: \exp\Big(-\sum_k p_k \log p_k\Big), \qquad p_k = \sigma_k / \sum_l \sigma_l

    Features are streamed into their covariance, in double precision: time O(Nd²), memory O(d²).

    Args:
        features: float `[N, d]`, in memory or not: see :func:`repertoire.diagnostics.eigenvalue_spectrum`.
        labels: not looked at; there because all diagnostics are called alike.

    Returns:
        Between 1 and min(N - 1, d); 0 if all features are the same; nan without features, or if some are not finite.

    Raises:
        ShapeError: features that are no floating point matrix.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import effective_rank
        >>> round(effective_rank(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])), 4)
        2.0
    """
    try:
        found = moments(features, _ROWS)
    except DataError:
        return math.nan
    if found is None:
        return math.nan
    values = torch.linalg.eigvalsh(found.scatter)
    # Of an eigenvalue, rounding leaves some 1e-16 of the largest: its square root would count as 1e-8.
    values = values.clamp_min(0).where(values > 1e-14 * len(values) * values[-1:], 0.0).sqrt()
    total = values.sum()
    return float(torch.special.entr(values / total).sum().exp()) if total > 0 else 0.0
