"""The eigenvalues of features' covariance: how the variance is spread over directions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from repertoire.diagnostics._stream import Features, moments
from repertoire.errors import ConfigError
from repertoire.registry import register

__all__ = ["Spectrum", "eigenvalue_spectrum", "participation_ratio"]


@dataclass(frozen=True)
class Spectrum:
    """Spread of the variance of features over directions.

    Attributes:
        eigenvalues: of the covariance, float64 `[d]`, largest first; what rounding alone leaves is zero.
        samples: N.
        constant: int64, the columns that are the same in all rows, which carry nothing.
    """

    eigenvalues: Tensor
    samples: int
    constant: Tensor

    @property
    def width(self) -> int:
        """d."""
        return len(self.eigenvalues)

    @property
    def rank(self) -> int:
        """Directions with any variance at all; at most N - 1."""
        return int((self.eigenvalues > 0).sum())

    @property
    def limited_by_samples(self) -> bool:
        """True if there are too few samples for all directions to show: then the rank says nothing of the network."""
        return self.samples <= self.width

    @property
    def effective_rank(self) -> float:
        """The exponential of the entropy of the singular values, see `repertoire.diagnostics.effective_rank`."""
        values = self.eigenvalues.sqrt()
        total = values.sum()
        return float(torch.special.entr(values / total).sum().exp()) if total > 0 else 0.0

    @property
    def participation_ratio(self) -> float:
        """The squared sum of the eigenvalues over the sum of their squares."""
        squares = self.eigenvalues.square().sum()
        return float(self.eigenvalues.sum().square() / squares) if squares > 0 else 0.0

    def directions(self, share: float) -> int:
        """Number of directions of largest variance that hold a share of it, in (0, 1].

        Raises:
            ConfigError: a share out of range.
        """
        if not 0 < share <= 1:
            raise ConfigError(f"share must lie in (0, 1], found {share}")
        held = self.eigenvalues.cumsum(0)
        return int((held < share * held[-1] * (1 - 1e-12)).sum()) + 1 if self.rank else 0


@torch.no_grad()
def eigenvalue_spectrum(features: Features) -> Spectrum:
    r"""The eigenvalues of the covariance of features: their decay says how many directions are in use.

    .. math:: \tfrac1N \sum_i (z_i - \bar z)(z_i - \bar z)^\top = \sum_k \lambda_k v_k v_k^\top

    Features are streamed, in double precision: time O(Nd²), memory O(d²).

    Args:
        features: float `[N, d]`: a tensor, an array or memory map, a list of blocks of rows, or a function that starts
            a pass over such blocks.

    Returns:
        The spectrum; without features one of no eigenvalue.

    Raises:
        ShapeError: features that are no floating point matrix. DataError: features that are not finite; their rows are
            named.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import eigenvalue_spectrum
        >>> x = torch.tensor([[2.0, 1.0, 5.0], [-2.0, 1.0, 5.0], [2.0, -1.0, 5.0], [-2.0, -1.0, 5.0]])
        >>> found = eigenvalue_spectrum(x)
        >>> [round(value, 4) for value in found.eigenvalues.tolist()], found.constant.tolist(), found.directions(0.75)
        ([4.0, 1.0, 0.0], [2], 1)
    """
    found = moments(features)
    if found is None:
        return Spectrum(torch.zeros(0, dtype=torch.float64), 0, torch.zeros(0, dtype=torch.int64))
    values = torch.linalg.eigvalsh(found.scatter / found.count).flip(0)
    # Of an eigenvalue, rounding leaves some 1e-16 of the largest.
    values = values.where(values > 1e-14 * len(values) * values[:1], 0.0)
    spread = found.scatter.diagonal() / found.count
    # A column of equal values has the variance that rounding gives their mean.
    constant = spread <= (1e-15 * found.mean.abs()).square()
    return Spectrum(values, found.count, constant.nonzero().squeeze(1))


@register("diagnostics", "participation-ratio")
def participation_ratio(features: Features, labels: Tensor | np.ndarray | None = None) -> float:
    r"""Number of directions that share the variance; unlike the effective rank it hardly counts the weak ones.

    With the eigenvalues :math:`\lambda_k` of the covariance:

    .. math:: \frac{\big(\sum_k \lambda_k\big)^2}{\sum_k \lambda_k^2}

    Args:
        features: float `[N, d]`, in memory or not: see :func:`repertoire.diagnostics.eigenvalue_spectrum`.
        labels: not looked at; there because all diagnostics are called alike.

    Returns:
        Between 1 and min(N - 1, d); 0 if all features are the same; nan without features.

    Raises:
        ShapeError: features that are no floating point matrix. DataError: features that are not finite.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import participation_ratio
        >>> round(participation_ratio(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])), 4)
        2.0
    """
    found = eigenvalue_spectrum(features)
    return found.participation_ratio if found.samples else math.nan
