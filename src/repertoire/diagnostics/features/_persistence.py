"""Clumps of features, told without labels by the lengths of their minimum spanning tree."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from repertoire.diagnostics._stream import Features, sample
from repertoire.errors import ConfigError
from repertoire.registry import register

__all__ = ["persistence_separability", "persistence_times", "tree_lengths"]


@torch.no_grad()
def tree_lengths(x: Tensor) -> Tensor:
    """The lengths of the edges of the Euclidean minimum spanning tree, by Prim's algorithm, without a matrix of pairs.

    Args:
        x: float `[N, d]`.

    Returns:
        float64 `[N - 1]`, ascending. Time O(N²d), memory O(Nd).

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import tree_lengths
        >>> tree_lengths(torch.tensor([[0.0], [1.0], [3.0]]))
        tensor([1., 2.], dtype=torch.float64)
    """
    count = len(x)
    if count < 2:
        return torch.zeros(0, dtype=torch.float64)
    rows = x.double()
    nearest = torch.full((count,), torch.inf, dtype=torch.float64, device=x.device)
    outside = torch.ones(count, dtype=torch.bool, device=x.device)
    lengths = torch.empty(count - 1, dtype=torch.float64, device=x.device)
    at = torch.zeros((), dtype=torch.int64, device=x.device)
    buffer = torch.empty_like(rows)
    for step in range(count - 1):
        outside[at] = False
        # Differences, not products: the small lengths are what is looked for. Rows that are in the tree are left out
        # now and then, so that in all half of the pairs are looked at.
        torch.sub(rows, rows[at], out=buffer)
        torch.minimum(nearest, torch.linalg.vector_norm(buffer, dim=1), out=nearest)
        nearest.masked_fill_(~outside, torch.inf)
        lengths[step], at = nearest.min(0)
        if step % 256 == 255:
            rows, nearest, at = rows[outside], nearest[outside], outside.cumsum(0)[at] - 1
            outside = torch.ones_like(outside[: len(rows)])
            buffer = buffer[: len(rows)]
    return lengths.sort().values


def persistence_times(features: Features, *, most: int = 2000, normalize: bool = True, seed: int = 0) -> Tensor:
    """The times at which the connected components of a growing neighbourhood of the features merge, over the longest.

    These are the persistence times of the homology of degree zero of the Vietoris-Rips filtration, which are the
    lengths of the minimum spanning tree.

    Args:
        features: float `[N, d]`, in memory or not: see :func:`repertoire.diagnostics.eigenvalue_spectrum`.
        most: of more rows, so many are drawn: time grows with the square, and takes seconds for the default. Fewer rows
            lie farther apart, so compare scores of the same number.
        normalize: scale the rows to unit length first.
        seed: of the draw.

    Returns:
        float64 `[min(N, most) - 1]`, ascending, in [0, 1]; all zero where all features are the same.

    Raises:
        ShapeError: features that are no floating point matrix. DataError: features that are not finite. ConfigError:
            `most` below 2.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import persistence_times
        >>> persistence_times(torch.tensor([[0.0], [1.0], [3.0]]), normalize=False)
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    if most < 2:
        raise ConfigError(f"most must be 2 or more, found {most}")
    rows, _ = sample(features, most, seed)
    if normalize:
        rows = torch.nn.functional.normalize(rows.double(), eps=1e-300)
    lengths = tree_lengths(rows)
    longest = float(lengths[-1]) if len(lengths) else 0.0
    # Equal rows that were scaled to unit length differ by rounding.
    return lengths / longest if longest > (1e-12 if normalize else 0.0) else torch.zeros_like(lengths)


@register("diagnostics", "persistence-separability", paper="persistence-separability")
def persistence_separability(
    features: Features,
    labels: Tensor | np.ndarray | None = None,
    *,
    most: int = 2000,
    normalize: bool = True,
    seed: int = 0,
) -> float:
    r"""Separability of features into clumps, without labels; lower is clearer.

    Ghalyan et al., *An Unsupervised Method for Estimating Class Separability of Datasets with Application to LLMs
    Fine-Tuning* (2023): with the persistence times :math:`p_1 \le \dots \le p_{N-1}` of the connected components, which
    are the lengths of the minimum spanning tree,

    .. math:: S = \frac{1}{N - 1} \sum_i \frac{p_i}{p_{N - 1}}

    Clumps join over a few long edges, and all others are short beside them. Follow the score over training and stop
    when it levels off; two data sets of different numbers of rows are not comparable.

    Args:
        features, most, normalize, seed: see :func:`repertoire.diagnostics.persistence_times`.
        labels: not looked at; there because all diagnostics are called alike.

    Returns:
        A number in [0, 1]; 0 if all features are the same; nan for fewer than two rows.

    Raises:
        ShapeError, DataError, ConfigError: as `persistence_times`.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import persistence_separability
        >>> x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
        >>> apart = x + 20 * torch.eye(8)[torch.arange(200) % 4]
        >>> persistence_separability(apart) < persistence_separability(x)
        True
    """
    times = persistence_times(features, most=most, normalize=normalize, seed=seed)
    return float(times.mean()) if len(times) else math.nan
