"""Geometry of the features of mixed images, between those of their two classes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from repertoire.errors import ShapeError

__all__ = ["MixedLayout", "mixed_layout"]


class MixedLayout(NamedTuple):
    """Mixed features in the plane of their two classifier rows, and how far they are from a blend of class means."""

    positions: Tensor
    """float64 `[N, 2]`: along the difference of the two rows, and across it towards both."""
    deviation: float
    """Mean distance from the blend, relative to the distance between the two class means."""


@torch.no_grad()
def mixed_layout(
    features: Tensor, share: Tensor, first: Tensor, second: Tensor, means: Tensor, weight: Tensor
) -> MixedLayout:
    r"""Positions of the last features of images mixed of two classes, in the plane of the classes' classifier rows.

    Fisher, Meng and Papyan, *Pushing Boundaries: Mixup's Influence on Neural Collapse* (2024), who find that they
    settle in a layout of their own, which is not the blend of the class means. With
    :math:`u = (w_a - w_b) / \lVert w_a - w_b \rVert` and v the unit vector of :math:`w_a + w_b` made orthogonal to u,
    the positions are :math:`(u^\top h, v^\top h)`, and the deviation is the mean over i of

    .. math::
        \frac{\lVert h_i - (\lambda_i \mu_{a_i} + (1 - \lambda_i) \mu_{b_i}) \rVert}
        {\lVert \mu_{a_i} - \mu_{b_i} \rVert}

    Args:
        features: h, float `[N, d]`, of images mixed as :math:`\lambda x_a + (1 - \lambda) x_b`.
        share: lambda, `[N]`.
        first, second: int64 `[N]`, the two classes a and b, which differ.
        means: float `[K, d]`, the class means of unmixed images.
        weight: float `[K, d]`, the classifier's rows.

    Returns:
        Positions and deviation; the deviation is nan without features.

    Raises:
        ShapeError: shapes that do not fit, or a pair of a class with itself.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import mixed_layout
        >>> mixed, half = torch.tensor([[0.5, 0.5]]), torch.tensor([0.5])
        >>> mixed_layout(mixed, half, torch.tensor([0]), torch.tensor([1]), torch.eye(2), torch.eye(2)).deviation
        0.0
    """
    count = len(features)
    if not share.shape == first.shape == second.shape == (count,) or means.shape != weight.shape:
        raise ShapeError(
            "share, first and second must be [N] and means and weight [K, d], found "
            f"{list(share.shape)}, {list(first.shape)}, {list(second.shape)}, {list(means.shape)} and "
            f"{list(weight.shape)}"
        )
    if bool((first == second).any()):
        raise ShapeError("first and second must differ: an image mixed of one class lies on no line between two")
    h, mu, w = features.double(), means.double(), weight.double()
    u = torch.nn.functional.normalize(w[first] - w[second], eps=1e-300)
    both = w[first] + w[second]
    v = torch.nn.functional.normalize(both - (both * u).sum(1, keepdim=True) * u, eps=1e-300)
    positions = torch.stack([(h * u).sum(1), (h * v).sum(1)], 1)
    blend = share[:, None] * mu[first] + (1 - share[:, None]) * mu[second]
    apart = (mu[first] - mu[second]).norm(dim=1).clamp_min(1e-300)
    return MixedLayout(positions, float(((h - blend).norm(dim=1) / apart).mean()))
