"""Trajectory regularisation: views along a path have features along a line."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.losses.contracts._added import AddedTerm
from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._views import check_views, full_precision
from repertoire.ops import unit_rows
from repertoire.registry import register

__all__ = ["Trajectory", "trajectory_loss"]


def trajectory_loss(*views: Tensor) -> Tensor:
    r"""Sharpness of the bends of the path of a sample's embeddings, from each view to the next but one.

    Wang et al., *Pose-Aware Self-Supervised Learning with Viewpoint Trajectory Regularization* (2024). With
    :math:`z_L, z_C, z_R` three views along a smooth path of the camera, scaled to unit length:

    .. math:: 1 - \cos(z_C - z_L,\ z_R - z_C)

    The mean is over the samples, and over all triples of adjacent views where there are more than three. Where two
    adjacent views have the same embedding there is no direction: such a triple counts 1, without a gradient.

    Args:
        views: three or more tensors, float `[N, d]`, in the order of the path; row i of each is the same sample.

    Returns:
        A scalar in [0, 2]; float32 for half-precision embeddings; zero for an empty batch.

    Raises:
        ShapeError: fewer than three views, or views of different shapes or dtypes.

    Example:
        >>> import torch
        >>> from repertoire.losses import trajectory_loss
        >>> left, centre, right = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[-1.0, 0.0]])
        >>> trajectory_loss(left, centre, right)  # a right angle
        tensor(1.)
    """
    check_views(views)
    if len(views) < 3:
        raise ShapeError(f"a trajectory needs at least three views of every sample, in order; found {len(views)}")
    with full_precision(*views) as z:
        units = [unit_rows(view) for view in z]
        steps = [unit_rows(after - before) for before, after in pairwise(units)]
        turns = [(1 - (step * then).sum(1)).sum() for step, then in pairwise(steps)]
        return torch.stack(turns).sum() / (len(turns) * max(len(z[0]), 1))


@register("losses", "trajectory", paper="trajssl")
class Trajectory(AddedTerm, ViewsLoss, function=trajectory_loss, base="vicreg"):
    """Module form of `trajectory_loss`."""

    views = 3
    example = "(torch.randn(4, 6), torch.randn(4, 6), torch.randn(4, 6))"
