"""EnsLoss: another calibrated loss for every batch, drawn at random, as dropout draws another network."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.losses.contracts._base import LogitsLoss, Reduction, check_logits, reduce
from repertoire.losses.contracts._classes import at_least_float32, check_classes
from repertoire.ranges import AtLeast, checked
from repertoire.registry import register

__all__ = ["EnsLoss", "ens_loss", "ens_loss_slopes"]

# The flattest a drawn loss gets before its tail: a calibrated one must fall everywhere.
_FLATTEST = 1e-6


@checked
def ens_loss_slopes(
    margins: Tensor, *, power: Annotated[float, AtLeast(0)] = 0.0, generator: torch.Generator | None = None
) -> Tensor:
    r"""Slopes at the given margins of a convex, calibrated loss that is drawn at random.

    Dai, *EnsLoss: Stochastic Calibrated Loss Ensembles for Preventing Overfitting in Classification* (2025). A loss of
    the margin is convex if its slope does not fall, and then calibrated if its slope at zero is negative. So random
    numbers, sorted, are the slopes of such a loss at the sorted margins, and the loss itself need not be known:

    .. math::
        \phi'(m_{(r)}) = -\frac{u_{(r)}}{\max(1, m_{(r)})}, \qquad
        u = \min\bigl(1, (1 + \lambda \varepsilon)_+^{1 / \lambda}\bigr), \quad \varepsilon \sim \mathcal{N}(0, 1)

    where the smallest margin gets the largest u, and u is an inverse Box-Cox transform, :math:`e^\varepsilon` at
    :math:`\lambda = 0`. The division flattens the tail, so that there is little to gain from margins beyond 1. That u
    is cut at 1 is from the released code; it is also kept above 1e-6, so that no slope is zero.

    Args:
        margins: float `[M]`; positive where the answer is right.
        power: lambda, 0 or more; how the slopes spread.
        generator: of random numbers, on the device of the margins; torch's own if None.

    Returns:
        The slopes `[M]`, negative, not smaller for a larger margin. Without a gradient.

    Raises:
        ShapeError: margins that are not floating point `[M]`.

    Example:
        >>> import torch
        >>> from repertoire.losses import ens_loss_slopes
        >>> slopes = ens_loss_slopes(torch.tensor([2.0, -1.0, 0.5]))
        >>> bool(slopes[1] <= slopes[2] <= slopes[0] < 0)
        True
    """
    if margins.ndim != 1 or not margins.is_floating_point():
        raise ShapeError(f"margins must be floating point [M], found {margins.dtype} {list(margins.shape)}")
    with torch.no_grad():
        values = at_least_float32(margins)
        draws = torch.randn(len(values), dtype=values.dtype, device=values.device, generator=generator)
        drawn = (1 + power * draws).clamp_min(0) ** (1 / power) if power else draws.exp()
        steepness = drawn.clamp(_FLATTEST, 1.0).sort(descending=True).values
        order = values.argsort()
        return -torch.empty_like(values).scatter(0, order, steepness) / values.clamp_min(1.0)


@checked
def ens_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    power: Annotated[float, AtLeast(0)] = 0.0,
    generator: torch.Generator | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Another calibrated loss for every batch, drawn at random, so that training does not fit one loss too well.

    Dai, *EnsLoss: Stochastic Calibrated Loss Ensembles for Preventing Overfitting in Classification* (2025):

    .. math::
        \frac{\partial \ell_i}{\partial m_{ij}} = \frac{\phi'(m_{ij})}{C - 1}, \qquad
        m_{ij} = f_{i y_i} - f_{ij}, \quad j \ne y_i

    with the slopes of :func:`repertoire.losses.ens_loss_slopes`, drawn over all margins of the batch. The paper has two
    classes, and there this is the paper's. For more, each wrong class gives a margin: the pairwise comparison of Zhang,
    *Statistical Analysis of Some Multi-Category Large Margin Classification Methods* (2004), is ours.

    Only the gradient is that of the drawn loss, whose values are unknown. The value is the logistic loss of the
    margins, so that what a run logs can be compared from step to step. A batch in pieces would draw a loss for each of
    them, so accumulation is refused; rule gradcache draws one for all that passes in chunks.

    Args:
        logits: float `[N, C]`.
        targets: int64 `[N]` in 0..C-1.
        power: lambda of the draw, 0 or more.
        generator: of random numbers, on the device of the logits; torch's own if None.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Returns:
        The loss; float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) a target that is no class.

    Example:
        >>> import torch
        >>> from repertoire.losses import ens_loss
        >>> logits = torch.zeros(2, 2, requires_grad=True)
        >>> loss = ens_loss(logits, torch.tensor([0, 1]))
        >>> loss
        tensor(0.6931, grad_fn=<MeanBackward0>)
        >>> loss.backward()
        >>> logits.grad.sign()
        tensor([[-1.,  1.],
                [ 1., -1.]])
    """
    margins = _margins(logits, targets)
    losses = F.softplus(-margins).detach()
    slopes = ens_loss_slopes(margins.detach().flatten(), power=power, generator=generator).view_as(margins)
    pull = slopes * margins
    return reduce(_over_classes(losses + (pull - pull.detach())), reduction)


def _margins(logits: Tensor, targets: Tensor) -> Tensor:
    """How far the right class is above each of the others, `[N, C - 1]`."""
    check_logits(logits, targets, soft=False)
    classes = logits.shape[1]
    check_classes(targets, classes)
    logits, right = at_least_float32(logits), targets.long()[:, None]
    others = torch.arange(max(classes - 1, 0), device=logits.device).expand(len(logits), -1)
    others = others + (others >= right)  # the classes without the right one
    return logits.gather(1, right) - logits.gather(1, others)


def _over_classes(losses: Tensor) -> Tensor:
    return losses.sum(1) / max(losses.shape[1], 1)


@register("losses", "ensloss", paper="ensloss")
class EnsLoss(LogitsLoss, function=ens_loss):
    """Module form of `ens_loss`."""

    random = True

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits `[N, C]` against class indices `[N]`; in evaluation mode with the logistic loss."""
        if not self.training:
            return reduce(_over_classes(F.softplus(-_margins(logits, targets))), self.reduction)
        return super().forward(logits, targets)
