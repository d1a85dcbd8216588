"""The linear function nearest to values at some points, for many images and targets in one solution."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["fit_through_both_ends", "fit_with_constant"]


def fit_with_constant(points: Tensor, values: Tensor, weights: Tensor, ridge: float = 0.0) -> Tensor:
    r"""The :math:`\phi` of :math:`\min_{c, \phi} \sum_s w_s (v_s - c - \phi^T u_s)^2 + \lambda \|\phi\|^2`.

    Args:
        points: `[S, D]`, shared by all columns of values.
        values: `[S, R]`.
        weights: `[S]`, not negative.
        ridge: lambda; the constant is not penalised.

    Returns:
        `[R, D]`; of several solutions the one of least norm. All in the dtype of the arguments, which should be double.
    """
    share = weights / weights.sum()
    root = weights.sqrt()[:, None]
    design = root * (points - share @ points)
    target = root * (values - share @ values)
    if ridge:
        count = points.shape[1]
        design = torch.cat([design, ridge**0.5 * torch.eye(count, dtype=design.dtype)])
        target = torch.cat([target, target.new_zeros(count, target.shape[1])])
    return torch.linalg.lstsq(design, target).solution.T


def fit_through_both_ends(kept: Tensor, values: Tensor, weights: Tensor, empty: Tensor, full: Tensor) -> Tensor:
    r"""The :math:`\phi` of :math:`\min_\phi \sum_s w_s (v_s - v_0 - \phi^T z_s)^2` with :math:`1^T \phi = v_1 - v_0`.

    The constraint is met exactly: what is solved for is the deviation from equal shares, in a basis of the vectors
    whose sum is zero.

    Args:
        kept: the masks z, `[S, D]`.
        values: `[S, R]`.
        weights: `[S]`.
        empty, full: the values of the empty and the full mask, `[R]`.

    Returns:
        `[R, D]`; of several solutions the one nearest to equal shares.
    """
    count = kept.shape[1]
    equal = (full - empty) / count
    basis = torch.linalg.qr(kept.new_ones(count, 1), mode="complete").Q[:, 1:]
    root = weights.sqrt()[:, None]
    target = root * (values - empty - kept.sum(1, keepdim=True) * equal)
    deviation = torch.linalg.lstsq(root * (kept @ basis), target).solution
    return equal[:, None] + (basis @ deviation).T
