"""LDAM: cross-entropy with a margin that is larger for rarer classes."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from repertoire.losses.contracts._base import LogitsLoss, Reduction, check_logits, reduce
from repertoire.losses.contracts._classes import at_least_float32, check_classes, target_log_probabilities
from repertoire.losses.contracts._counts import ClassCounts, check_counts
from repertoire.ranges import AtLeast, Positive, checked
from repertoire.registry import register

__all__ = ["LDAM", "ldam_loss"]


@checked
def ldam_loss(
    logits: Tensor,
    targets: Tensor,
    counts: ClassCounts,
    *,
    margin: Annotated[float, AtLeast(0)] = 0.5,
    scale: Annotated[float, Positive] = 30.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy with a margin that is larger for rarer classes.

    Cao et al., *Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss* (2019):

    .. math::
        \ell_i = -\log \frac{e^{s (f_{i y_i} - \Delta_{y_i})}}
                            {e^{s (f_{i y_i} - \Delta_{y_i})} + \sum_{k \ne y_i} e^{s f_{ik}}}, \qquad
        \Delta_k = m \left( \frac{\min_j n_j}{n_k} \right)^{1/4}

    The logits are cosines of features and class vectors, as of `heads.Cosine(..., scale=1, learn_scale=False)`: a
    margin means nothing where the logits may grow at will. The paper trains the last epochs with class weights too.

    Args:
        logits: float `[N, C]`, cosines.
        targets: int64 `[N]` in 0..C-1.
        counts: `[C]`, the number n of training samples of each class, positive.
        margin: m, the margin of the rarest class, 0 or more.
        scale: s, positive.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Returns:
        The loss; float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) a target that is no class.

    Example:
        >>> import torch
        >>> from repertoire.losses import ldam_loss
        >>> cosines, counts = torch.zeros(2, 2), torch.tensor([16, 1])
        >>> ldam_loss(cosines, torch.tensor([0, 1]), counts, scale=1.0, reduction="none")  # margins 0.25 and 0.5
        tensor([0.8259, 0.9741])
    """
    check_logits(logits, targets, soft=False)
    check_counts(counts, logits)
    check_classes(targets, logits.shape[1])
    logits = at_least_float32(logits)
    counts = counts.to(logits)
    margins = margin * (counts.min() / counts) ** 0.25
    index = targets.long()[:, None]
    shifted = logits.scatter_add(1, index, -margins[index])
    return reduce(-target_log_probabilities(scale * shifted, targets), reduction)


@register("losses", "ldam")
class LDAM(LogitsLoss, function=ldam_loss):
    """Module form of `ldam_loss`."""

    counts: Tensor
