"""Softmax cross-entropy with logits shifted by the frequencies of the classes: logit adjustment, balanced softmax."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from repertoire.losses.contracts._base import LogitsLoss, Reduction, check_logits, reduce
from repertoire.losses.contracts._classes import at_least_float32, target_log_probabilities
from repertoire.losses.contracts._counts import ClassCounts, check_counts
from repertoire.ranges import AtLeast, checked
from repertoire.registry import register

__all__ = ["BalancedSoftmax", "LogitAdjusted", "balanced_softmax_loss", "logit_adjusted_loss"]


@checked
def logit_adjusted_loss(
    logits: Tensor,
    targets: Tensor,
    counts: ClassCounts,
    *,
    tau: Annotated[float, AtLeast(0)] = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy of logits shifted by the log frequencies of their classes, for long-tailed data.

    Menon et al., *Long-Tail Learning via Logit Adjustment* (2021):

    .. math::
        \ell_i = -\log \frac{e^{f_{i y_i} + \tau \log \pi_{y_i}}}{\sum_k e^{f_{ik} + \tau \log \pi_k}}, \qquad
        \pi_k = n_k / \sum_j n_j

    The shift is for training alone. What the logits learn is what speaks for a class beyond its frequency, and they are
    compared as they are on test data: at tau = 1 their argmax minimises the balanced error, in which every class counts
    alike.

    Args:
        logits: float `[N, C]`, not shifted.
        targets: int64 `[N]` in 0..C-1.
        counts: `[C]`, the number n of training samples of each class, positive.
        tau: how much of the shift to apply, 0 or more; 0 is cross-entropy.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Returns:
        The loss; float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) a target that is no class.

    Example:
        >>> import torch
        >>> from repertoire.losses import logit_adjusted_loss
        >>> logits, targets = torch.zeros(2, 2), torch.tensor([0, 1])
        >>> logit_adjusted_loss(logits, targets, torch.tensor([75, 25]), reduction="none")  # -log 0.75, -log 0.25
        tensor([0.2877, 1.3863])
    """
    check_logits(logits, targets, soft=False)
    check_counts(counts, logits)
    logits = at_least_float32(logits)
    shift = counts.to(logits).log()  # the sum of the counts is the same for all classes, and softmax takes it away
    return reduce(-target_log_probabilities(logits + tau * shift, targets), reduction)


@checked
def balanced_softmax_loss(
    logits: Tensor, targets: Tensor, counts: ClassCounts, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Cross-entropy of a softmax in which each class is weighted by its count, for long-tailed data.

    Ren et al., *Balanced Meta-Softmax for Long-Tailed Visual Recognition* (2020):

    .. math:: \ell_i = -\log \frac{n_{y_i} e^{f_{i y_i}}}{\sum_k n_k e^{f_{ik}}}

    It is :func:`logit_adjusted_loss` at tau = 1, found at the same time from another side.

    Args:
        logits: float `[N, C]`.
        targets: int64 `[N]` in 0..C-1.
        counts: `[C]`, the number n of training samples of each class, positive.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Returns:
        The loss; float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) a target that is no class.

    Example:
        >>> import torch
        >>> from repertoire.losses import balanced_softmax_loss
        >>> balanced_softmax_loss(torch.zeros(1, 2), torch.tensor([1]), torch.tensor([75, 25]))
        tensor(1.3863)
    """
    return logit_adjusted_loss(logits, targets, counts, reduction=reduction)


@register("losses", "logit-adjusted")
class LogitAdjusted(LogitsLoss, function=logit_adjusted_loss):
    """Module form of `logit_adjusted_loss`.

    Attributes:
        prior_power: the power of the counts by which it multiplies the odds of the classes in training.
    """

    counts: Tensor
    tau: float

    @property
    def prior_power(self) -> float:
        return self.tau


@register("losses", "balanced-softmax")
class BalancedSoftmax(LogitsLoss, function=balanced_softmax_loss):
    """Module form of `balanced_softmax_loss`."""

    counts: Tensor
    prior_power = 1.0
