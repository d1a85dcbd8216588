"""Cross-entropy between softmax probabilities and hard or soft targets."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from torch.nn import functional as F

from repertoire.losses.contracts._base import LogitsLoss, Reduction, check_logits, reduce
from repertoire.losses.contracts._classes import ClassWeights, at_least_float32, check_classes, check_weight
from repertoire.ranges import Share, checked
from repertoire.registry import register

__all__ = ["CrossEntropy", "cross_entropy"]


@checked
def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    label_smoothing: Annotated[float, Share] = 0.0,
    weight: ClassWeights = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Softmax cross-entropy, with label smoothing, class weights and soft targets.

    .. math::
        \ell_i = -\sum_c w_c\,q_{ic} \log \frac{e^{f_{ic}}}{\sum_k e^{f_{ik}}}, \qquad
        q_i = (1 - \epsilon)\,t_i + \epsilon / C

    where t is the one-hot vector of the class, or the soft target itself. Label smoothing is that of Szegedy et al.,
    *Rethinking the Inception Architecture for Computer Vision* (2016).

    It differs from :func:`torch.nn.functional.cross_entropy` in five ways: half precision is summed in float32, the
    mean over an empty batch is zero, a class that does not exist is an error with a message, no index is ignored, and a
    mean with class weights divides by N.

    Args:
        logits: float `[N, C]`.
        targets: int64 `[N]` in 0..C-1, or float `[N, C]`, each row a distribution.
        weight: float `[C]`, non-negative, the importance of each class. The mean divides by N, not by the sum of the
            targets' weights: the loss of a batch is then the mean of the losses of its pieces, whatever is in them.
        label_smoothing: epsilon, in [0, 1]: how much of the target is spread evenly over all classes.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Returns:
        The loss; float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) a target that is no class.

    Example:
        >>> import torch
        >>> from repertoire.losses import cross_entropy
        >>> cross_entropy(torch.zeros(2, 4), torch.tensor([0, 3]), reduction="none")
        tensor([1.3863, 1.3863])
    """
    check_logits(logits, targets)
    check_weight(weight, logits)
    logits = at_least_float32(logits)
    weight = None if weight is None else weight.to(logits)
    if targets.is_floating_point():
        losses = F.cross_entropy(
            logits, targets.to(logits.dtype), weight, label_smoothing=label_smoothing, reduction="none"
        )
        return reduce(losses, reduction)
    check_classes(targets, logits.shape[1])
    targets = targets.long()
    return reduce(
        F.cross_entropy(logits, targets, weight, label_smoothing=label_smoothing, reduction="none"), reduction
    )


@register("losses", "cross-entropy")
class CrossEntropy(LogitsLoss, function=cross_entropy):
    """Module form of `cross_entropy`."""

    soft = True
    weight: Tensor | None
