"""LDAM: cross-entropy with a margin that is larger for rarer classes."""

from __future__ import annotations

from torch import Tensor

from repertoire.losses.contracts._base import LogitsLoss, Reduction, check_finite, check_logits, reduce
from repertoire.losses.contracts._classes import at_least_float32, check_classes, target_log_probabilities
from repertoire.losses.contracts._counts import as_counts, check_counts
from repertoire.registry import register

__all__ = ["LDAM", "ldam_loss"]


def ldam_loss(
    logits: Tensor,
    targets: Tensor,
    counts: Tensor,
    *,
    margin: float = 0.5,
    scale: float = 30.0,
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
class LDAM(LogitsLoss):
    r"""Cross-entropy with a margin that is larger for rarer classes.

    The module form of :func:`repertoire.losses.ldam_loss`, which gives the paper and the formula. Use it with
    `--head cosine:scale=1,learn_scale=false`.

    Args:
        counts: the number of training samples of each class, all positive. Kept as a buffer.
        margin: the margin of the rarest class, 0 or more.
        scale: what the cosines are multiplied by, positive.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Shapes:
        logits float `[N, C]`, cosines; targets int64 `[N]`.

    Raises:
        ValueError: counts that are not positive, a margin below 0, a scale that is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import LDAM
        >>> LDAM([16, 1], scale=1.0, reduction="none")(torch.zeros(2, 2), torch.tensor([0, 1]))
        tensor([0.8259, 0.9741])
    """

    counts: Tensor

    def __init__(
        self,
        counts: list[float] | Tensor,
        margin: float = 0.5,
        scale: float = 30.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        if not margin >= 0:
            raise ValueError(f"margin must be 0 or more, found {margin}")
        if not scale > 0:
            raise ValueError(f"scale must be positive, found {scale}")
        check_finite(margin=margin, scale=scale)
        self.margin = margin
        self.scale = scale
        self.register_buffer("counts", as_counts(counts))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of cosines `[N, C]` against class indices `[N]`."""
        return ldam_loss(logits, targets, self.counts, margin=self.margin, scale=self.scale, reduction=self.reduction)
