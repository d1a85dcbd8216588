"""Second moments of rows."""

from __future__ import annotations

from torch import Tensor

__all__ = ["covariance", "cross_square"]


def covariance(x: Tensor, correction: int = 1) -> tuple[Tensor, Tensor]:
    """Rows less their mean, and the covariance of their columns.

    Args:
        x: float `[..., N, d]`.
        correction: divides by N less this: 1 (default) for the unbiased estimate, 0 for the mean of squares.

    Returns:
        float `[..., N, d]`, the centred rows; float `[..., d, d]`, the covariance, zero where N does not exceed the
        correction.

    Example:
        >>> import torch
        >>> from repertoire.ops import covariance
        >>> covariance(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))[1]
        tensor([[2., 0.],
                [0., 0.]])
    """
    rows = x.shape[-2]
    # max: the mean of no rows is not a number.
    centred = x - x.sum(-2, keepdim=True) / max(rows, 1)
    return centred, centred.mT @ centred / max(rows - correction, 1)


def cross_square(x: Tensor, y: Tensor) -> Tensor:
    r"""Sum of the squares of :math:`x^\top y`, which is made over the shorter side: features or rows.

    .. math:: \lVert x^\top y \rVert_F^2 = \sum_{ij} (x x^\top)_{ij} (y y^\top)_{ij}

    With 8192 features and 256 rows the right-hand side takes a thousandth of the memory.

    Args:
        x: float `[N, d]`.
        y: float `[N, e]`.

    Returns:
        A scalar.

    Example:
        >>> import torch
        >>> from repertoire.ops import cross_square
        >>> cross_square(torch.eye(2), torch.ones(2, 3))
        tensor(6.)
    """
    if len(x) < min(x.shape[1], y.shape[1]):
        return ((x @ x.T) * (y @ y.T)).sum()
    return (x.T @ y).square().sum()
