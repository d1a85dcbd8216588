"""The observed entries behind a prediction of a low-rank matrix: representers for recommenders."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError

__all__ = ["LowRankModel", "fit_low_rank", "low_rank_representers"]


class LowRankModel(NamedTuple):
    """A matrix with few singular values, fitted to some of its entries."""

    left: Tensor
    """U, `[R, k]`: of rows (users), k the rank."""
    singular_values: Tensor
    """The diagonal of S, `[k]`, all positive, the largest first."""
    right: Tensor
    """V, `[C, k]`: of columns (items)."""
    strength: float
    """lambda."""
    residual: float
    """Largest change of an entry in the last step: how far the matrix is from a minimum."""

    def __call__(self, rows: Tensor, columns: Tensor) -> Tensor:
        """The predictions `[m]` of some entries, int64 `[m]` each."""
        return ((self.left[rows] * self.singular_values) * self.right[columns]).sum(1)


def fit_low_rank(
    rows: Tensor,
    columns: Tensor,
    values: Tensor,
    shape: tuple[int, int],
    *,
    strength: float = 0.01,
    tolerance: float = 1e-10,
    max_iter: int = 5000,
) -> LowRankModel:
    r"""A matrix of low rank from some of its entries, as close to its minimum as representers need.

    .. math::
        \min_\Theta \; \frac{1}{n} \sum_k \tfrac12 (\Theta_{r_k c_k} - v_k)^2 + \lambda \lVert \Theta \rVert_*

    with the nuclear norm, the sum of the singular values. Solved by accelerated proximal gradient steps with restarts,
    each a singular value decomposition of the whole matrix, in double precision: for thousands of rows or columns, not
    for millions.

    Args:
        rows, columns: where the entries are, int64 `[n]`; an entry may be there several times.
        values: float `[n]`.
        shape: R and C.
        strength: lambda, positive.
        tolerance: largest change of an entry in a step at which it stops.
        max_iter: steps at most; reaching it warns.

    Raises:
        ConfigError: strength out of range.
        ShapeError: entries that do not fit each other or the shape.

    Example:
        >>> import torch
        >>> from repertoire.explain import fit_low_rank
        >>> rows, columns = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])
        >>> model = fit_low_rank(rows, columns, torch.tensor([4.0, 2.0, 2.0]), (2, 2), strength=0.01)
        >>> len(model.singular_values), round(float(model(torch.tensor([1]), torch.tensor([1]))), 2)
        (1, 0.99)
    """
    if not 0 < strength < float("inf"):
        raise ConfigError(f"strength must be positive, found {strength}")
    _check(rows, columns, shape)
    if values.shape != rows.shape or not values.is_floating_point() or not values.isfinite().all():
        raise ShapeError(f"values must be {len(rows)} finite floating point numbers, found {values.dtype} "
                         f"{list(values.shape)}")  # fmt: skip
    wanted = values.detach().double()
    place = rows * shape[1] + columns
    # The curvature of an entry is how often it was observed.
    step = len(rows) / float(torch.bincount(place).max())
    matrix = ahead = wanted.new_zeros(shape[0] * shape[1])
    momentum, residual, parts = 1.0, float("inf"), _decomposed(matrix.view(shape), 0.0)
    for _ in range(max_iter):
        slope = torch.zeros_like(ahead).index_add_(0, place, ahead[place] - wanted) / len(rows)
        parts = _decomposed((ahead - step * slope).view(shape), step * strength)
        moved = ((parts[0] * parts[1]) @ parts[2].T).flatten()
        again = float(((ahead - moved) * (moved - matrix)).sum()) > 0
        following = 1.0 if again else (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        residual = float((moved - ahead).abs().max())
        ahead = moved + (0.0 if again else (momentum - 1) / following) * (moved - matrix)
        matrix, momentum = moved, following
        if residual <= tolerance:
            break
    else:
        warnings.warn(
            f"after {max_iter} steps the entries still move by {residual:.1g}, and shares of entries add up to "
            "predictions no better than that; raise max_iter or strength",
            stacklevel=2,
        )
    return LowRankModel(*parts, strength, residual)


def low_rank_representers(
    model: LowRankModel, rows: Tensor, columns: Tensor, values: Tensor, *, of: tuple[Tensor, Tensor]
) -> Tensor:
    r"""Divides predictions of a low-rank matrix among the observed entries; a row sums to the prediction.

    Tsai et al., *Representer Point Selection for Explaining Regularized High-dimensional Models* (2023), for the
    nuclear norm. At the minimum :math:`\Theta = U S V^\top` the gradient of the loss balances the norm on the singular
    subspaces, :math:`-\tfrac{1}{\lambda} U^\top \nabla V = I`, so that

    .. math::
        \Theta_{rc} = \sum_k -\frac{1}{n \lambda} \frac{\partial \ell_k}{\partial \Theta_{r_k c_k}}
        \; \big(u_r^\top S^{1/2} u_{r_k}\big) \, \big(v_{c_k}^\top S^{1/2} v_c\big)

    An entry counts by what it pulls with, times how alike the users are, times how alike the items are.

    Args:
        model: what :func:`fit_low_rank` gave.
        rows, columns, values: what it was given, `[n]` each.
        of: rows and columns of the entries whose predictions are explained, int64 `[m]` each.

    Returns:
        `[m, n]`, float64.

    Raises:
        ShapeError: entries that do not fit each other or the model.

    Example:
        >>> import torch
        >>> from repertoire.explain import fit_low_rank, low_rank_representers
        >>> entries = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]), torch.tensor([4.0, 2.0, 2.0])
        >>> model = fit_low_rank(*entries, (2, 2), strength=0.01)
        >>> asked = torch.tensor([1]), torch.tensor([1])
        >>> shares = low_rank_representers(model, *entries, of=asked)
        >>> torch.allclose(shares.sum(1), model(*asked))
        True
    """
    shape = (len(model.left), len(model.right))
    for pair in ((rows, columns), of):
        _check(*pair, shape)
    pull = -(model(rows, columns) - values.double()) / (len(rows) * model.strength)
    scale = model.singular_values.sqrt()
    users = (model.left[of[0]] * scale) @ model.left[rows].T
    items = (model.right[of[1]] * scale) @ model.right[columns].T
    return pull * users * items


def _decomposed(matrix: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Its singular vectors and values, less the threshold, of the values above it."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    kept = values > threshold
    return left[:, kept], values[kept] - threshold, right[kept].T


def _check(rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> None:
    for name, index, most in (("rows", rows, shape[0]), ("columns", columns, shape[1])):
        if index.ndim != 1 or index.dtype != torch.int64 or len(index) != len(rows) or not len(index):
            raise ShapeError(f"{name} must be int64 [n], as many as there are entries, found {index.dtype} "
                             f"{list(index.shape)}")  # fmt: skip
        if not 0 <= int(index.min()) <= int(index.max()) < most:
            raise ShapeError(f"{name} must be from 0 to {most - 1}, found {int(index.min())} to {int(index.max())}")
