"""Rise of the loss within a small ball of weights."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from repertoire.diagnostics._objective import Batches, Loss, Objective, finite_loss
from repertoire.errors import ConfigError, NonFiniteLoss

__all__ = ["Sharpness", "sharpness"]


class Sharpness(NamedTuple):
    """Sharpness of a minimum.

    Attributes:
        loss: at the weights.
        worst: the highest loss that was found in the ball, at least `loss`.
        rise: the difference.
        relative: the rise in per cent of one plus the loss, the measure of Keskar et al.
    """

    loss: float
    worst: float
    rise: float
    relative: float


def sharpness(
    model: nn.Module,
    batches: Batches,
    loss: Loss | None = None,
    *,
    rho: float = 0.05,
    adaptive: bool = False,
    steps: int = 5,
) -> Sharpness:
    r"""Finds the largest rise of the mean loss when the weights move by no more than `rho`.

    The quantity that sharpness-aware minimisation keeps small: Foret, Kleiner, Mobahi and Neyshabur, *Sharpness-Aware
    Minimization for Efficiently Improving Generalization* (2020),

    .. math:: \max_{\lVert \epsilon \rVert_2 \le \rho} L(\theta + \epsilon) - L(\theta)

    searched for by steps of gradient ascent that each end where the linearised loss is largest in the ball; the
    first of them is the step of SAM. The relative form is that of Keskar et al., *On Large-Batch Training for Deep
    Learning: Generalization Gap and Sharp Minima* (2017), who look in a box instead. The model is in evaluation mode
    and is left as it was.

    Args:
        model: any module; its parameters that need a gradient move.
        batches: pairs of inputs and targets, or batches of `repertoire.data`.
        loss: of outputs and targets; cross-entropy by default, a method's own for batches of `repertoire.data`.
        rho: radius of the ball, positive.
        adaptive: the ball is measured relative to each weight's size, :math:`\lVert \epsilon / |\theta| \rVert`, which
            rescaling layers against each other leaves as it is (Kwon et al., *ASAM*, 2021). Its radii are about ten
            times as large.
        steps: of the search; each costs two passes over the batches.

    Returns:
        Losses and rise; a lower bound of the largest possible rise, as any search gives.

    Raises:
        ConfigError: rho or steps out of range, or no parameter needs a gradient. NonFiniteLoss: the loss at the weights
        is not finite. DataError: no batches.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import sharpness
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> found = sharpness(model, [(torch.ones(4, 1), torch.zeros(4, 1))], torch.nn.functional.mse_loss, rho=0.1)
        >>> round(found.loss, 3), round(found.worst, 3)
        (1.0, 1.21)
    """
    if not 0 < rho < math.inf:
        raise ConfigError(f"rho must be a positive number, found {rho}")
    if steps < 1:
        raise ConfigError(f"steps must be at least 1, found {steps}")
    objective = Objective(model, batches, loss)
    here = objective.flat()
    start = finite_loss(objective.mean())
    scale = here.abs() if adaptive else torch.ones_like(here)
    worst, at = start, here
    for step in range(steps):
        try:
            gradient = _gradient(objective, objective.unflat(at))
        except NonFiniteLoss:
            if step == 0:
                raise
            break  # the ascent has come to where the loss overflows
        scaled = scale * gradient
        norm = scaled.norm()
        if not norm > 0:
            break
        at = here + rho * scale * scaled / norm
        found = objective.mean(objective.unflat(at))
        if not found > worst:
            break
        worst = found
    return Sharpness(start, worst, worst - start, 100 * (worst - start) / (1 + start))


def _gradient(objective: Objective, weights: dict[str, Tensor]) -> Tensor:
    total = torch.zeros_like(objective.flat())
    count = 0
    for gradient, _, size in objective.gradients(weights):
        total.add_(gradient, alpha=size)
        count += size
    return total / count
