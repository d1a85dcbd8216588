"""Labels that are likely wrong: a model that has not seen the sample is sure of another class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from repertoire.errors import ShapeError

__all__ = ["LabelErrors", "label_errors"]


@dataclass(frozen=True)
class LabelErrors:
    """Samples whose label is doubtful, the most doubtful first.

    Attributes:
        index: int64 `[m]`, rows.
        suggested: int64 `[m]`, the class that each seems to be of.
        margin: float64 `[m]`, probability of that class less that of the label, in (-1, 1).
        noise: float64 `[K, K]`, the estimated joint distribution of the label and the true class: rows are labels.
    """

    index: Tensor
    suggested: Tensor
    margin: Tensor
    noise: Tensor

    @property
    def share(self) -> float:
        """The estimated share of wrong labels."""
        return float(self.noise.sum() - self.noise.diagonal().sum())


@torch.no_grad()
def label_errors(probabilities: Tensor, labels: Tensor) -> LabelErrors:
    r"""Which labels are likely wrong, by confident learning.

    Northcutt, Jiang and Chuang, *Confident Learning: Estimating Uncertainty in Dataset Labels* (2021). A sample counts
    as of class j when its probability reaches what samples labelled j have on average,

    .. math:: t_j = \frac{1}{|\{i : y_i = j\}|} \sum_{i : y_i = j} p_{ij}, \qquad
        \hat{c}_i = \operatorname{arg\,max}_{j : p_{ij} \ge t_j} p_{ij},

    and its label is doubtful when that class is not its label. Counts of pairs of label and class, scaled to the
    labels' frequencies, estimate the joint distribution. The probabilities must come from a model that was not fitted
    to the sample's own label: a vote of its neighbours, or cross-validation. The test images of a run qualify as they
    are; its training images do not, because it may have learnt the wrong label by heart.

    Args:
        probabilities: float `[N, K]`, rows that sum to one.
        labels: int64 `[N]` in 0..K-1.

    Raises:
        ShapeError: shapes that do not fit, or a label that is no column.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import label_errors
        >>> p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.1, 0.9]])
        >>> found = label_errors(p, torch.tensor([0, 0, 1, 1, 0]))
        >>> found.index.tolist(), found.suggested.tolist()
        ([4], [1])
    """
    if probabilities.ndim != 2 or not probabilities.is_floating_point() or labels.shape != probabilities.shape[:1]:
        raise ShapeError(
            f"probabilities must be [N, K] and labels [N], found {list(probabilities.shape)} and {list(labels.shape)}"
        )
    count, classes = probabilities.shape
    if count and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        raise ShapeError(f"labels must lie in 0..{classes - 1}, found {int(labels.min())} to {int(labels.max())}")
    p, own = probabilities.double(), labels.long()
    sizes = torch.bincount(own, minlength=classes)
    given = p.gather(1, own[:, None]).squeeze(1)
    sums = torch.zeros(classes, dtype=torch.float64, device=p.device).index_add_(0, own, given)
    # A class without a sample is never suggested.
    limits = torch.where(sizes > 0, sums / sizes.clamp_min(1), torch.inf)
    reached = p.where(p >= limits - 1e-12, -1.0)
    best, suggested = reached.max(1) if classes else (p.new_zeros(count), own)
    confident = best >= 0
    joint = torch.bincount(own[confident] * classes + suggested[confident], minlength=classes**2)
    noise = joint.view(classes, classes).double()
    # A class of which no sample is confident keeps its labels.
    noise += torch.diag(((noise.sum(1) == 0) & (sizes > 0)).double())
    noise *= (sizes / noise.sum(1).clamp_min(1e-300))[:, None] / max(1, count)
    margin = best - given
    doubtful = (confident & (suggested != own)).nonzero().squeeze(1)
    order = doubtful[margin[doubtful].argsort(descending=True, stable=True)]
    return LabelErrors(order, suggested[order], margin[order], noise)
