"""Cross-entropy between softmax probabilities and hard or soft targets."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from repertoire.losses.contracts._base import LogitsLoss, Reduction, check_logits, reduce
from repertoire.losses.contracts._classes import as_weight, at_least_float32, check_classes, check_weight
from repertoire.registry import register

__all__ = ["CrossEntropy", "cross_entropy"]


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Softmax cross-entropy, with label smoothing, class weights and soft targets.

    .. math::
        \ell_i = -\sum_c w_c\,q_{ic} \log \frac{e^{f_{ic}}}{\sum_k e^{f_{ik}}}, \qquad
        q_i = (1 - \epsilon)\,t_i + \epsilon / C

    where t is the one-hot vector of the class, or the soft target itself. Label smoothing is that of Szegedy et al.,
    *Rethinking the Inception Architecture for Computer Vision* (2016).

    It differs from :func:`torch.nn.functional.cross_entropy` in four ways: half precision is summed in float32, the
    mean over an empty batch is zero, a class that does not exist is an error with a message, and no index is ignored.

    Args:
        logits: float `[N, C]`.
        targets: int64 `[N]` in 0..C-1, or float `[N, C]`, each row a distribution.
        weight: float `[C]`, non-negative, the importance of each class. As in PyTorch the mean over class indices then
            divides by the sum of the targets' weights, the mean over soft targets by N.
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
    losses = F.cross_entropy(logits, targets, weight, label_smoothing=label_smoothing, reduction="none")
    if weight is None or reduction != "mean":
        return reduce(losses, reduction)
    # A batch in which every class has weight zero has the mean zero, like an empty one.
    total = weight[targets].sum()
    return losses.sum() / total.where(total > 0, 1.0)


@register("losses", "cross-entropy")
class CrossEntropy(LogitsLoss):
    r"""Softmax cross-entropy, with label smoothing, class weights and soft targets.

    The module form of :func:`repertoire.losses.cross_entropy`, which gives the formula.

    Args:
        label_smoothing: how much of the target is spread evenly over all classes, in [0, 1].
        weight: the importance of each class, one non-negative number each; all equal if None. Kept as a buffer.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Shapes:
        logits float `[N, C]`; targets int64 `[N]` or float `[N, C]`.

    Raises:
        ValueError: label smoothing outside [0, 1], weights that are negative or not finite.

    Example:
        >>> import torch
        >>> from repertoire.losses import CrossEntropy
        >>> CrossEntropy(label_smoothing=0.1)(torch.zeros(2, 4), torch.tensor([0, 3]))
        tensor(1.3863)
    """

    weight: Tensor | None

    def __init__(
        self, label_smoothing: float = 0.0, weight: list[float] | Tensor | None = None, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must lie in [0, 1], found {label_smoothing}")
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", as_weight(weight))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits `[N, C]` against class indices `[N]` or soft targets `[N, C]`."""
        return cross_entropy(
            logits, targets, weight=self.weight, label_smoothing=self.label_smoothing, reduction=self.reduction
        )
