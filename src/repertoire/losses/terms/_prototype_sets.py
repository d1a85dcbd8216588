"""How the prototypes of classes lie to each other: near the border of another class, far from it, at right angles."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError

__all__ = ["closeness_loss", "discrimination_loss", "orthogonality_loss"]


def closeness_loss(prototypes: Tensor) -> Tensor:
    r"""Draws the prototypes of every two classes together, as support vectors lie at a border.

    Wang et al., *Learning Support and Trivial Prototypes for Interpretable Image Classification* (2023). With the unit
    prototypes :math:`p_{ck}` of C classes, and the least similar pair of each two:

    .. math:: \ell = -\frac{1}{C (C - 1)} \sum_{c \ne c'} \min_{k, k'} \; p_{ck} \cdot p_{c'k'}

    Args:
        prototypes: float `[C, K, d]`, K of each class; only their direction counts.

    Returns:
        A scalar in [-1, 1]; 0 for one class.

    Raises:
        ShapeError: prototypes of another shape or dtype.

    Example:
        >>> import torch
        >>> from repertoire.losses import closeness_loss
        >>> closeness_loss(torch.tensor([[[1.0, 0.0]], [[3.0, 0.0]]])).item()
        -1.0
    """
    return -_between(prototypes, lambda cosines: cosines.amin((1, 3)))


def discrimination_loss(prototypes: Tensor) -> Tensor:
    r"""Drives the prototypes of every two classes apart, the most similar pair of each two.

    Wang et al., *Learning Support and Trivial Prototypes for Interpretable Image Classification* (2023). With the unit
    prototypes :math:`p_{ck}` of C classes:

    .. math:: \ell = \frac{1}{C (C - 1)} \sum_{c \ne c'} \max_{k, k'} \; p_{ck} \cdot p_{c'k'}

    Args:
        prototypes: float `[C, K, d]`, K of each class; only their direction counts.

    Returns:
        A scalar in [-1, 1]; 0 for one class.

    Raises:
        ShapeError: prototypes of another shape or dtype.

    Example:
        >>> import torch
        >>> from repertoire.losses import discrimination_loss
        >>> discrimination_loss(torch.tensor([[[1.0, 0.0]], [[3.0, 0.0]]])).item()
        1.0
    """
    return _between(prototypes, lambda cosines: cosines.amax((1, 3)))


def orthogonality_loss(prototypes: Tensor) -> Tensor:
    r"""Sets the prototypes of a class at right angles, so that they stand for different parts.

    Wang et al., *Learning Support and Trivial Prototypes for Interpretable Image Classification* (2023). With the unit
    prototypes of class c as the rows of :math:`P_c`:

    .. math:: \ell = \sum_c \lVert P_c P_c^\top - I \rVert_1

    where the norm is the sum of the absolute entries.

    Args:
        prototypes: float `[C, K, d]`, K of each class; only their direction counts.

    Returns:
        A scalar, 0 or more.

    Raises:
        ShapeError: prototypes of another shape or dtype.

    Example:
        >>> import torch
        >>> from repertoire.losses import orthogonality_loss
        >>> orthogonality_loss(torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[1.0, 0.0], [1.0, 0.0]]])).item()
        2.0
    """
    unit = _unit(prototypes)
    identity = torch.eye(unit.shape[1], dtype=unit.dtype, device=unit.device)
    return (unit @ unit.transpose(1, 2) - identity).abs().sum()


def _between(prototypes: Tensor, extreme: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean over pairs of different classes of an extreme cosine `[C, C]` of cosines `[C, K, C, K]`."""
    unit = _unit(prototypes)
    classes, count, _ = unit.shape
    rows = unit.flatten(0, 1)
    cosines = (rows @ rows.T).view(classes, count, classes, count)
    pairs = extreme(cosines)
    return (pairs.sum() - pairs.diagonal().sum()) / max(1, classes * (classes - 1))


def _unit(prototypes: Tensor) -> Tensor:
    if prototypes.ndim != 3 or not prototypes.is_floating_point():
        raise ShapeError(
            f"prototypes must be floating point [C, K, d], found {prototypes.dtype} {list(prototypes.shape)}"
        )
    wide = prototypes.to(torch.promote_types(prototypes.dtype, torch.float32))
    return F.normalize(wide, dim=2)
