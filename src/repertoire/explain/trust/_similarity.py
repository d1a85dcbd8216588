"""Similarities of two maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.explain._explainer import check_finite, to_unit_range

__all__ = ["map_correlation", "rank_correlation", "structural_similarity"]


def map_correlation(first: Tensor, second: Tensor) -> Tensor:
    r"""Pearson's correlation of pairs of maps over their pixels.

    Args:
        first, second: float `[N, H, W]`, on any scale.

    Returns:
        `[N]` in [-1, 1]. A constant map has no correlation: two of them give 1, one gives 0.

    Raises:
        ShapeError: the two differ in shape, or are no maps.

    Example:
        >>> import torch
        >>> from repertoire.explain import map_correlation
        >>> a = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
        >>> map_correlation(a, 2 * a + 1), map_correlation(a, -a), map_correlation(a, torch.zeros_like(a))
        (tensor([1.]), tensor([-1.]), tensor([0.]))
    """
    a, b = (maps.flatten(1) for maps in _pair(first, second))
    return _pearson(a, b).to(first.dtype)


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    r"""Spearman's rank correlation of pairs of maps over their pixels: whether they put pixels in the same order.

    Equal pixels share their mean rank.

    Args:
        first, second: float `[N, H, W]`, on any scale.

    Returns:
        `[N]` in [-1, 1]. A constant map has no correlation: two of them give 1, one gives 0.

    Raises:
        ShapeError: the two differ in shape, or are no maps.

    Example:
        >>> import torch
        >>> from repertoire.explain import rank_correlation
        >>> a = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
        >>> rank_correlation(a, a.exp())
        tensor([1.])
    """
    a, b = (_mean_ranks(maps.flatten(1)) for maps in _pair(first, second))
    return _pearson(a, b).to(first.dtype)


def structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    r"""Structural similarity (SSIM) of pairs of maps, each first divided by its largest value.

    Wang, Bovik, Sheikh and Simoncelli, *Image Quality Assessment: From Error Visibility to Structural Similarity*
    (2004). Over windows, Gaussian of deviation 1.5 and of 11 pixels (or the side of the maps, if that is less),

    .. math:: \mathrm{SSIM} = \frac{(2 \mu_1 \mu_2 + c_1)(2 \sigma_{12} + c_2)}
              {(\mu_1^2 + \mu_2^2 + c_1)(\sigma_1^2 + \sigma_2^2 + c_2)}, \qquad c_1 = 0.01^2,\; c_2 = 0.03^2

    and the mean over all windows that lie inside.

    Args:
        first, second: float `[N, H, W]`, none of it negative.

    Returns:
        `[N]`, at most 1, which is for equal maps.

    Raises:
        ShapeError: the two differ in shape, or are no maps.

    Example:
        >>> import torch
        >>> from repertoire.explain import structural_similarity
        >>> a = torch.rand(1, 16, 16)
        >>> structural_similarity(a, a)
        tensor([1.])
    """
    a, b = (to_unit_range(maps)[:, None] for maps in _pair(first, second))
    means, squares = _windows(torch.cat([a, b])), _windows(torch.cat([a * a, b * b, a * b]))
    (m1, m2), (s1, s2, s12) = means.chunk(2), squares.chunk(3)
    c1, c2 = 0.01**2, 0.03**2
    v1, v2, covariance = s1 - m1 * m1, s2 - m2 * m2, s12 - m1 * m2
    local = (2 * m1 * m2 + c1) * (2 * covariance + c2) / ((m1 * m1 + m2 * m2 + c1) * (v1 + v2 + c2))
    return local.mean((1, 2, 3)).to(first.dtype)


def _windows(maps: Tensor) -> Tensor:
    """Weighted means over the windows of `structural_similarity`."""
    for dim in (2, 3):
        size = min(11, maps.shape[dim])
        offsets = torch.arange(size, device=maps.device, dtype=maps.dtype) - (size - 1) / 2
        kernel = torch.exp(-0.5 * (offsets / 1.5) ** 2)
        maps = F.conv2d(maps, (kernel / kernel.sum()).view([1, 1, -1, 1] if dim == 2 else [1, 1, 1, -1]))
    return maps


def _pair(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both in double precision: the variance of a nearly constant map is a small difference of large numbers."""
    if first.ndim != 3 or not first.is_floating_point() or second.shape != first.shape:
        raise ShapeError(
            f"two maps must be floating point [N, H, W] of one shape, found {first.dtype} {list(first.shape)} and "
            f"{second.dtype} {list(second.shape)}"
        )
    for maps in (first, second):
        check_finite(maps.flatten(1).isfinite().all(1), "the map")
    return first.double(), second.to(first.device).double()


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    constant = torch.stack([a.amax(1) == a.amin(1), b.amax(1) == b.amin(1)])
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    lengths = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    found = ((a * b).sum(1) / lengths.masked_fill(lengths == 0, 1.0)).clamp(-1, 1)
    return found.masked_fill(constant.any(0), 0.0).masked_fill(constant.all(0), 1.0)


def _mean_ranks(rows: Tensor) -> Tensor:
    ordered = rows.sort(1).values
    below = torch.searchsorted(ordered, rows)
    return (below + torch.searchsorted(ordered, rows, right=True) - 1).double() / 2
