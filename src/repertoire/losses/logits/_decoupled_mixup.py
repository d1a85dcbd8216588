"""Decoupled mixup: cross-entropy on mixed samples, and each of the two classes alone against all others."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.losses.contracts._base import LogitsLoss, Reduction, check_logits, reduce
from repertoire.losses.contracts._classes import at_least_float32
from repertoire.losses.logits._cross_entropy import cross_entropy
from repertoire.ranges import AtLeast, checked
from repertoire.registry import register

__all__ = ["DecoupledMixup", "decoupled_mixup_loss"]

LEAST = 1e-3
"""Share below which a class counts as not there."""


@checked
def decoupled_mixup_loss(
    logits: Tensor, targets: Tensor, *, eta: Annotated[float, AtLeast(0)] = 0.1, reduction: Reduction = "mean"
) -> Tensor:
    r"""Cross-entropy of mixed samples, and of each of the classes in them without the others as rivals.

    Liu et al., *Harnessing Hard Mixed Samples with Decoupled Regularizer* (2022). A sample that was mixed of classes a
    and b with shares :math:`\lambda` and :math:`1 - \lambda` shows both, however small its share; but cross-entropy
    with such targets has them compete. The added terms leave the partner out of the softmax:

    .. math::
        \ell = -\lambda \log p_a - (1 - \lambda) \log p_b + \eta \Bigl(
            -\log \frac{e^{f_a}}{\sum_{c \ne b} e^{f_c}} - \log \frac{e^{f_b}}{\sum_{c \ne a} e^{f_c}} \Bigr)

    A sample that is not mixed, or of one class with itself, has its cross-entropy alone; so has every sample of two
    classes, of which nothing is left when the partner is gone. A sample of three classes or more has a term for each.
    As in the released code, a share of 0.001 or less counts as none. That code also leaves the terms out where both
    shares are alike, because it tells classes by their shares; here they count.

    It is made for targets by :func:`repertoire.methods.mixup` or `cutmix` (`--method supervised:mix=mixup --loss
    decoupled-mixup`), and not for smoothed labels, in which all classes are mixed.

    Args:
        logits: float `[N, C]`, raw.
        targets: float `[N, C]`, each row a distribution, or int64 `[N]` in 0..C-1, which is not mixed.
        eta: weight of the decoupled terms, 0 or more; 0.1 in the paper.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Returns:
        The loss; float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) a target that is no class.

    Example:
        >>> import torch
        >>> from repertoire.losses import decoupled_mixup_loss
        >>> both = torch.tensor([[9.0, 9.0, 0.0]])  # sure that two classes are there
        >>> mixed = torch.tensor([[0.7, 0.3, 0.0]])
        >>> plain, whole = (decoupled_mixup_loss(both, mixed, eta=eta) for eta in (0.0, 1.0))
        >>> round(float(whole - plain), 4)  # is all that they ask for
        0.0002
    """
    check_logits(logits, targets)
    losses = cross_entropy(logits, targets, reduction="none")
    if not targets.is_floating_point() or eta == 0:
        return reduce(losses, reduction)
    scores = at_least_float32(logits)
    there = targets > LEAST
    # Classes that are not mixed in; finite where there is none, for a gradient that is a number.
    rest = scores.masked_fill(there, torch.finfo(scores.dtype).min).logsumexp(1, keepdim=True)
    terms = -F.logsigmoid(scores - rest)
    several = there & (there.sum(1, keepdim=True) > 1)
    return reduce(losses + eta * terms.masked_fill(~several, 0).sum(1), reduction)


@register("losses", "decoupled-mixup", paper="decoupled-mixup")
class DecoupledMixup(LogitsLoss, function=decoupled_mixup_loss):
    """Module form of `decoupled_mixup_loss`."""

    soft = True
    linear = False
