"""How far weights are from where they are held, each by its own strength."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.losses.contracts._classes import at_least_float32
from repertoire.ranges import Positive, checked

__all__ = ["consolidate_", "consolidation"]

Strengths = Sequence[Tensor | float]


def consolidation(weights: Sequence[Tensor], anchors: Sequence[Tensor], strengths: Strengths) -> Tensor:
    r"""The elastic penalty of weights that are held near others, each by a strength of its own.

    Ling and Bohn, *A Deep Learning Framework for Lifelong Machine Learning* (2021):

    .. math:: \sum_i b_i\,(w_i - w_i^*)^2

    With the Fisher information for b it is elastic weight consolidation up to a factor, with one b for all weights the
    squared distance from earlier weights. A weight with b = 0 is free. One with b = inf is frozen: it is left out of
    the sum, whose gradient would not be finite, and :func:`repertoire.losses.consolidate_` puts it back.

    Args:
        weights: float tensors of any shapes.
        anchors: w*, of the same shapes.
        strengths: b, 0 or more, a number or a tensor for each of the weights, which broadcasts to its shape.

    Returns:
        A scalar, 0 or more; float32 for half-precision weights.

    Raises:
        ShapeError: other numbers of weights, anchors and strengths, or shapes that do not fit.

    Example:
        >>> import torch
        >>> from repertoire.losses import consolidation
        >>> consolidation([torch.tensor([1.0, 2.0, 3.0])], [torch.zeros(3)], [torch.tensor([1.0, 0.0, 2.0])])
        tensor(19.)
    """
    _check(weights, anchors, strengths)
    if not weights:
        return torch.zeros(())
    # Added where the first weight is: a network may be divided among devices.
    total = at_least_float32(weights[0]).new_zeros(())
    for weight, anchor, strength in zip(weights, anchors, strengths, strict=True):
        squares = (at_least_float32(weight) - anchor.to(weight)).square()
        if isinstance(strength, Tensor):
            squares = squares * strength.where(strength.isfinite(), 0).to(squares)
            total = total + squares.sum()
        elif 0 < strength < float("inf"):
            total = total + strength * squares.sum()
    return total


@torch.no_grad()
@checked
def consolidate_(
    weights: Sequence[Tensor], anchors: Sequence[Tensor], strengths: Strengths, rate: Annotated[float, Positive] = 1.0
) -> None:
    r"""Moves weights to where the elastic penalty is balanced by the way back: its proximal step, in place.

    .. math:: w_i \leftarrow \frac{w_i + 2 \eta b_i w_i^*}{1 + 2 \eta b_i}
        = \arg\min_v \tfrac{1}{2 \eta} (v - w_i)^2 + b_i (v - w_i^*)^2

    A gradient step of rate :math:`\eta` on :func:`repertoire.losses.consolidation` overshoots from
    :math:`\eta b = \frac12` on and diverges from 1 on; this one does not, whatever the strength. With b = inf the
    weight is its anchor bit for bit, whatever momentum, weight decay or anything else did to it.

    Args:
        weights: float tensors, changed in place.
        anchors: w*, of the same shapes.
        strengths: b, 0 or more, a number or a tensor for each of the weights.
        rate: eta, positive: the learning rate that the step stands for.

    Raises:
        ShapeError: other numbers of weights, anchors and strengths, or shapes that do not fit.

    Example:
        >>> import torch
        >>> from repertoire.losses import consolidate_
        >>> weight = torch.tensor([1.0, 1.0, 1.0])
        >>> consolidate_([weight], [torch.zeros(3)], [torch.tensor([0.0, 0.5, float("inf")])])
        >>> weight
        tensor([1.0000, 0.5000, 0.0000])
    """
    _check(weights, anchors, strengths)
    for weight, anchor, strength in zip(weights, anchors, strengths, strict=True):
        held = torch.as_tensor(strength, dtype=anchor.dtype, device=weight.device)
        wanted = anchor.to(weight)
        # 1 - 1 / (1 + 2 eta b), which is 0 at no strength and 1 at an infinite one.
        share = (2 * rate * held / (1 + 2 * rate * held)).where(held.isfinite(), 1).to(weight.dtype)
        weight.copy_(torch.where(held.isfinite(), weight + share * (wanted - weight), wanted))


def _check(weights: Sequence[Tensor], anchors: Sequence[Tensor], strengths: Strengths) -> None:
    if not len(weights) == len(anchors) == len(strengths):
        raise ShapeError(
            f"weights, anchors and strengths must be as many, found {len(weights)}, {len(anchors)} and {len(strengths)}"
        )
    for number, (weight, anchor, strength) in enumerate(zip(weights, anchors, strengths, strict=True)):
        if weight.shape != anchor.shape:
            raise ShapeError(f"anchor {number} must be {list(weight.shape)}, found {list(anchor.shape)}")
        if isinstance(strength, Tensor):
            try:
                fits = torch.broadcast_shapes(strength.shape, weight.shape) == weight.shape
            except RuntimeError:
                fits = False
            if not fits:
                raise ShapeError(
                    f"strength {number} must be a number or broadcast to {list(weight.shape)}, found "
                    f"{list(strength.shape)}"
                )
