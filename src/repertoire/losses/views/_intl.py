"""INTL: iterative normalisation with a loss on the trace."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._views import check_views, full_precision, mean_over_pairs
from repertoire.ops import newton_whiten, unit_rows
from repertoire.ranges import AtLeast, checked
from repertoire.registry import register

__all__ = ["INTL", "Axis", "intl_loss"]

Axis = Literal["auto", "features", "samples"]


@checked
def intl_loss(
    *views: Tensor,
    iterations: Annotated[int, AtLeast(1)] = 4,
    trace_weight: Annotated[float, AtLeast(0)] | None = None,
    axis: Axis = "auto",
) -> Tensor:
    r"""INTL: approximately whitened views close together, and the variance of each whitened feature at one.

    Weng et al., *Modulate Your Spectrum in Self-Supervised Learning* (2023). Each view is whitened by T Newton
    iterations (:func:`repertoire.ops.newton_whiten`), which brings the large eigenvalues of its covariance near one and
    leaves the small ones below; the trace loss draws those up, and so makes the spectrum flat:

    .. math:: \frac1N \sum_i \left\lVert \frac{\hat{z}_i}{\lVert \hat{z}_i \rVert} - \frac{\hat{z}'_i}{\lVert
        \hat{z}'_i \rVert} \right\rVert^2 + \beta \sum_{v \in \{z, z'\}} \sum_j \left(1 - \operatorname{Var}(\hat{v}^j)
        \right)^2

    With `axis="features"` that is so for the covariance of the d features, which needs more samples than features.
    With "samples" rows and columns change places: what is whitened are the N samples over their features, as the
    released code does by default, with d = 8192 and N = 256; it needs more features than samples. "auto" whitens the
    fewer of the two. With more than two views it is the mean over their pairs, where the released code has the pairs
    with the first view.

    Args:
        views: two or more tensors, float `[N, d]`; row i of each is the same sample.
        iterations: T, positive; 4 in the paper.
        trace_weight: beta, 0 or more; the paper's 0.01 (log2 n - 3) if None, with n the number of what is whitened, but
            at least 0.01.
        axis: what is whitened: "features", "samples" or "auto" (default).

    Returns:
        A scalar, 0 or more; float32 for half-precision embeddings; zero for an empty batch.

    Raises:
        ShapeError: fewer than two views, or views of different shapes or dtypes.
        ConfigError, ValueError: an argument out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import intl_loss
        >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # a flat spectrum
        >>> intl_loss(x, 3 * x, iterations=8).round(decimals=3)
        tensor(0.)
    """
    check_views(views)
    rows, width = views[0].shape
    over_samples = axis == "samples" or (axis == "auto" and rows < width)
    count = rows if over_samples else width
    if trace_weight is None:
        trace_weight = max(0.01 * (math.log2(max(count, 1)) - 3), 0.01)
    with full_precision(*views) as z:
        if not rows:
            return torch.stack([view.sum() for view in z]).sum()
        whitened, traces = [], []
        for view in z:
            out = newton_whiten(view.T if over_samples else view, iterations)
            variance = out.square().sum(0) / max(len(out) - 1, 1)
            traces.append((1 - variance).square().sum())
            whitened.append(unit_rows(out.T if over_samples else out))
        alignment = mean_over_pairs(whitened, lambda x, y: (x - y).square().sum() / rows)
        return alignment + 2 * trace_weight * torch.stack(traces).mean()


@register("losses", "intl", paper="intl")
class INTL(ViewsLoss, function=intl_loss):
    """Module form of `intl_loss`."""
