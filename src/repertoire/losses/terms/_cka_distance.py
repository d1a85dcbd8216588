"""One minus linear CKA of two representations of a batch: how far one is from being a rotation of the other."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.losses.contracts._classes import at_least_float32

__all__ = ["cka_distance"]

_FLOOR = 1e-6
"""The least HSIC of a representation with itself, which is 1 or more in the plain form, and any number in the other."""


def cka_distance(x: Tensor, y: Tensor, *, unbiased: bool = False) -> Tensor:
    r"""One minus the linear CKA of two representations of the samples of a batch, which can be minimised.

    Kornblith et al., *Similarity of Neural Network Representations Revisited* (2019). With the Gram matrices
    :math:`K = X X^\top` and :math:`L = Y Y^\top` of the batch:

    .. math:: \ell = 1 - \frac{\mathrm{HSIC}(K, L)}{\sqrt{\mathrm{HSIC}(K, K)\,\mathrm{HSIC}(L, L)}}

    It does not change with the rotation, the scale, the mean or the width of either. In a batch of fewer samples than
    features the plain estimate of HSIC, that of centred matrices, lies near 1 whatever the two are; `unbiased` takes
    that of Song et al., *Feature Selection via Dependence Maximization* (2012), which is about 0 for unrelated ones.
    :func:`repertoire.diagnostics.linear_cka` measures the same over a whole data set. Here the two matrices are
    of the size of the batch.

    Args:
        x: float `[N, ...]`; what follows the first dimension is flattened.
        y: float `[N, ...]`, of any other width: row i is the same sample as row i of x.
        unbiased: False (default) for the plain form.

    Returns:
        A scalar, in [0, 1] in the plain form; float32 for half-precision input. It is 1, without a gradient, where a
        representation does not vary, or the batch is smaller than two samples (four if `unbiased`).

    Raises:
        ShapeError: other numbers of rows, or no floating point.

    Example:
        >>> import torch
        >>> from repertoire.losses import cka_distance
        >>> x = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
        >>> turned = 3 * x @ torch.linalg.qr(torch.randn(8, 8)).Q + 1
        >>> abs(cka_distance(x, turned).item()) < 1e-4
        True
    """
    for name, value in (("x", x), ("y", y)):
        if value.ndim < 2 or not value.is_floating_point():
            raise ShapeError(f"{name} must be floating point [N, ...], found {value.dtype} {list(value.shape)}")
    if len(x) != len(y):
        raise ShapeError(f"x and y must have the same samples, found {len(x)} rows and {len(y)}")
    count = len(x)
    left, right = (at_least_float32(value).flatten(1) for value in (x, y))
    if count < (4 if unbiased else 2):
        return 1 + 0 * (left.sum() + right.sum().to(left.dtype))
    k, l = (_gram(rows, unbiased) for rows in (left, right.to(left.dtype)))  # noqa: E741
    kl, kk, ll = (_hsic(a, b, unbiased) for a, b in ((k, l), (k, k), (l, l)))
    return 1 - kl / (kk.clamp_min(_FLOOR) * ll.clamp_min(_FLOOR)).sqrt()


def _gram(rows: Tensor, unbiased: bool) -> Tensor:
    """The Gram matrix of centred rows, in units of the mean of its diagonal; without the diagonal if unbiased."""
    rows = rows - rows.mean(0)
    matrix = rows @ rows.T
    size = matrix.diagonal().mean()
    matrix = matrix / size.where(size > 0, 1)
    return matrix - torch.diag(matrix.diagonal()) if unbiased else matrix


def _hsic(k: Tensor, l: Tensor, unbiased: bool) -> Tensor:  # noqa: E741
    """HSIC of two Gram matrices of centred rows, up to a factor that the three have in common."""
    n = len(k)
    if not unbiased:
        return (k * l).sum() / n
    sums = k.sum() * l.sum() / ((n - 1) * (n - 2))
    rows = k.sum(0) @ l.sum(0)
    return ((k * l).sum() + sums - 2 / (n - 2) * rows) / n
