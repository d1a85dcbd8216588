"""Centred kernel alignment: how alike two representations of the same samples are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from repertoire.diagnostics._stream import ROWS, Features, blocks
from repertoire.errors import ShapeError

__all__ = ["cka_matrix", "linear_cka"]


class _Joint:
    """Sums that linear CKA needs of two sets of rows, in one pass, in double precision.

    The rows are moved to the first block's mean, which changes no result and keeps large offsets from cancelling.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.count = 0
        self.origin_x, self.origin_y = x.double().mean(0), y.double().mean(0)
        self.sum_x, self.sum_y = torch.zeros_like(self.origin_x), torch.zeros_like(self.origin_y)
        self.xx = x.new_zeros(x.shape[1], x.shape[1], dtype=torch.float64)
        self.yy = y.new_zeros(y.shape[1], y.shape[1], dtype=torch.float64)
        self.xy = x.new_zeros(x.shape[1], y.shape[1], dtype=torch.float64)
        # Of the diagonals k_i = |x_i|² and l_i = |y_i|²: sums, products, and the rows weighted by them.
        self.k, self.l, self.kk, self.ll, self.kl = (x.new_zeros((), dtype=torch.float64) for _ in range(5))
        self.xk, self.xl = torch.zeros_like(self.origin_x), torch.zeros_like(self.origin_x)
        self.yk, self.yl = torch.zeros_like(self.origin_y), torch.zeros_like(self.origin_y)

    def add(self, x: Tensor, y: Tensor) -> None:
        x, y = x.double() - self.origin_x, y.double() - self.origin_y
        self.count += len(x)
        self.sum_x += x.sum(0)
        self.sum_y += y.sum(0)
        self.xx.addmm_(x.T, x)
        self.yy.addmm_(y.T, y)
        self.xy.addmm_(x.T, y)
        k, l = x.square().sum(1), y.square().sum(1)  # noqa: E741
        self.k += k.sum()
        self.l += l.sum()
        self.kk += k @ k
        self.ll += l @ l
        self.kl += k @ l
        self.xk += k @ x
        self.xl += l @ x
        self.yk += k @ y
        self.yl += l @ y

    def biased(self) -> tuple[float, float, float]:
        """Squared Frobenius norms of the centred cross-products: xy, xx, yy."""
        n = self.count
        pairs = (
            (self.xy, self.sum_x, self.sum_y),
            (self.xx, self.sum_x, self.sum_x),
            (self.yy, self.sum_y, self.sum_y),
        )
        xy, xx, yy = (float((cross - torch.outer(a, b) / n).square().sum()) for cross, a, b in pairs)
        return xy, xx, yy

    def unbiased(self) -> tuple[float, float, float]:
        """The unbiased estimates of HSIC, up to one factor: xy, xx, yy."""
        return (
            self._hsic(self.xy, self.sum_x, self.sum_y, self.k, self.l, self.kl, self.xl, self.yk),
            self._hsic(self.xx, self.sum_x, self.sum_x, self.k, self.k, self.kk, self.xk, self.xk),
            self._hsic(self.yy, self.sum_y, self.sum_y, self.l, self.l, self.ll, self.yl, self.yl),
        )

    def _hsic(
        self,
        cross: Tensor,
        a: Tensor,
        b: Tensor,
        k: Tensor,
        l: Tensor,  # noqa: E741
        kl: Tensor,
        al: Tensor,
        bk: Tensor,
    ) -> float:
        n = self.count
        trace = cross.square().sum() - kl
        sums = ((a @ a) - k) * ((b @ b) - l) / ((n - 1) * (n - 2))
        rows = a @ cross @ b - a @ al - b @ bk + kl
        return float(trace + sums - 2 / (n - 2) * rows)


@torch.no_grad()
def linear_cka(x: Features, y: Features, *, unbiased: bool = True) -> float:
    r"""Similarity of two representations of the same samples, whatever their rotation, scale and width.

    Kornblith et al., *Similarity of Neural Network Representations Revisited* (2019), with a linear kernel: for centred
    X and Y

    .. math:: \frac{\lVert X^\top Y \rVert_F^2}{\lVert X^\top X \rVert_F \lVert Y^\top Y \rVert_F}

    which tends to 1 where there are few more samples than features. `unbiased` puts the estimate of HSIC of Song et
    al., *Feature Selection via Dependence Maximization* (2012), in the place of each norm, as in Nguyen, Raghu and
    Kornblith, *Do Wide and Deep Networks Learn the Same Things?* (2021). Both are sums over rows here: one pass in
    double precision, time O(N(d + e)²), memory O((d + e)²), and no matrix of samples.

    Args:
        x: float `[N, d]`, in memory or not: see :func:`repertoire.diagnostics.eigenvalue_spectrum`.
        y: float `[N, e]`, row i is the same sample as row i of x.
        unbiased: True (default), or False for the plain form.

    Returns:
        At most 1, reached for equal representations; at least 0 if not `unbiased`, else about 0 for unrelated ones. nan
        where one of the two does not vary, or for fewer than two rows (four if unbiased).

    Raises:
        ShapeError: no floating point matrices, or different numbers of rows. DataError: features that are not finite.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import linear_cka
        >>> x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
        >>> turned = 3 * x @ torch.linalg.qr(torch.randn(8, 8)).Q
        >>> round(linear_cka(x, turned), 4)
        1.0
    """
    joint = None
    for a, b in _pairs(x, y):
        if joint is None:
            joint = _Joint(a, b)
        joint.add(a, b)
    if joint is None or joint.count < (4 if unbiased else 2):
        return math.nan
    xy, xx, yy = joint.unbiased() if unbiased else joint.biased()
    tiny = 1e-24 * float(joint.k) ** 2, 1e-24 * float(joint.l) ** 2
    if not (xx > tiny[0] and yy > tiny[1]):
        return math.nan
    return min(xy / math.sqrt(xx * yy), 1.0)


def _pairs(x: Features, y: Features) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of both with the same rows, however the two are cut."""
    left, right = blocks(x, ROWS // 2), blocks(y, ROWS // 2)
    a = b = None
    counted = [0, 0]
    while True:
        if a is None or not len(a):
            a = next(left, None)
            counted[0] += 0 if a is None else len(a)
        if b is None or not len(b):
            b = next(right, None)
            counted[1] += 0 if b is None else len(b)
        if a is None or b is None:
            break
        size = min(len(a), len(b))
        yield a[:size], b[:size]
        a, b = a[size:], b[size:]
    if (a is None) != (b is None):
        counted[0] += sum(map(len, left))
        counted[1] += sum(map(len, right))
        raise ShapeError(f"x and y must have the same samples, found {counted[0]} rows and {counted[1]}")


def cka_matrix(x: Sequence[Features], y: Sequence[Features] | None = None, *, unbiased: bool = True) -> Tensor:
    """Linear CKA of every representation of one list with every one of another: layers of a network, or of two.

    Args:
        x: representations of the same samples, `[N, d]` each, of any widths.
        y: others of the same samples; x itself if None.
        unbiased: see :func:`repertoire.diagnostics.linear_cka`.

    Returns:
        float64 `[len(x), len(y)]`.

    Raises:
        ShapeError, DataError: as `linear_cka`.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import cka_matrix
        >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> cka_matrix([x, 2 * x])
        tensor([[1., 1.],
                [1., 1.]], dtype=torch.float64)
    """
    found = torch.ones(len(x), len(x if y is None else y), dtype=torch.float64)
    for i, a in enumerate(x):
        for j, b in enumerate(x if y is None else y):
            if y is None and j < i:
                found[i, j] = found[j, i]
            else:
                found[i, j] = linear_cka(a, b, unbiased=unbiased)
    return found
