"""Labels that are likely wrong: a model that has not seen the sample is sure of another class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from repertoire.diagnostics._stream import Features, as_labels, whole
from repertoire.errors import ConfigError, DataError, ShapeError

__all__ = ["LabelErrors", "label_errors"]

Filter = Literal["confident", "noise-rate", "class", "both", "self-confidence"]


@dataclass(frozen=True)
class LabelErrors:
    """Samples whose label is doubtful, the most doubtful first.

    Attributes:
        index: int64 `[m]`, rows.
        suggested: int64 `[m]`, the class that each seems to be of.
        margin: float64 `[m]`, probability of that class less that of the label, in (-1, 1).
        noise: float64 `[K, K]`, the estimated joint distribution of the label and the true class: rows are labels.
        confidence: float64 `[N]`, of all samples, the probability of the own label: the lower, the more doubtful.
        normalised_margin: float64 `[N]`, of all samples, in [0, 1]: half of one plus what the own label has more than
            the likeliest other class.
    """

    index: Tensor
    suggested: Tensor
    margin: Tensor
    noise: Tensor
    confidence: Tensor
    normalised_margin: Tensor

    @property
    def share(self) -> float:
        """The estimated share of wrong labels. It counts what the model gets wrong as well, and is too high by about
        that: where 10 % were wrong, models of 75 to 85 % accuracy made it 17 to 23 %."""
        return float((self.noise.sum() - self.noise.diagonal().sum()).clamp_min(0))


@torch.no_grad()
def label_errors(probabilities: Features, labels: Tensor | np.ndarray, *, filter: Filter = "confident") -> LabelErrors:
    r"""Finds labels that are likely wrong, by confident learning.

    Northcutt, Jiang and Chuang, *Confident Learning: Estimating Uncertainty in Dataset Labels* (2021). A sample counts
    as of class j when its probability reaches what samples labelled j have on average,

    .. math:: t_j = \frac{1}{|\{i : y_i = j\}|} \sum_{i : y_i = j} p_{ij}, \qquad
        \hat{c}_i = \operatorname{arg\,max}_{j : p_{ij} \ge t_j} p_{ij},

    and its label is doubtful when that class is not its label. Counts of pairs of label and class, scaled to the
    labels' frequencies, estimate the joint distribution. The probabilities must come from a model that was not fitted
    to the sample's own label: a vote of its neighbours, or cross-validation. The test images of a run qualify as they
    are; its training images do not, because it may have learnt the wrong label by heart.

    Args:
        probabilities: float `[N, K]`, rows that sum to one; in memory or not, see
            :func:`repertoire.diagnostics.eigenvalue_spectrum`.
        labels: integers `[N]` in 0..K-1.
        filter: which labels are doubtful. "confident" (default): those that are not the class the sample counts as.
            "noise-rate": for each pair of label and class as many as the joint distribution says, those with the
            largest margin first; it finds more of the wrong labels, and more that are right. "class": for each label as
            many as the distribution says, those with the least confidence first. "both": what both of these say.
            "self-confidence": as many as "confident" counts, those of all with the least confidence.

    Raises:
        ShapeError: shapes that do not fit, or a label that is no column. DataError: probabilities that are not finite,
            or rows that are no distributions. ConfigError: no such filter.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import label_errors
        >>> p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.1, 0.9]])
        >>> found = label_errors(p, torch.tensor([0, 0, 1, 1, 0]))
        >>> found.index.tolist(), found.suggested.tolist()
        ([4], [1])
    """
    if filter not in get_args(Filter):
        raise ConfigError(f"filter must be one of {', '.join(get_args(Filter))}, found {filter!r}")
    p = whole(probabilities).double()
    own = as_labels(labels).to(p.device)
    if len(own) != len(p):
        raise ShapeError(f"probabilities must be [N, K] and labels [N], found {list(p.shape)} and {list(own.shape)}")
    count, classes = p.shape
    if count and (int(own.min()) < 0 or int(own.max()) >= classes):
        raise ShapeError(f"labels must lie in 0..{classes - 1}, found {int(own.min())} to {int(own.max())}")
    wrong = ((p.sum(1) - 1).abs() > 1e-3) | (p < -1e-6).any(1)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise DataError(
            f"probabilities must be 0 or more, and each row sum to 1; row {row} sums to {float(p[row].sum()):.4g} and "
            f"has a least value of {float(p[row].min()):.4g}. Of scores, take the softmax"
        )
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
    others = p.scatter(1, own[:, None], -1.0)
    rest, other = others.max(1) if classes > 1 else (p.new_zeros(count), own)
    doubtful = confident & (suggested != own)
    if filter != "confident":
        wanted = int(doubtful.sum())
        doubtful = _filtered(filter, p, own, (noise * count).round().long(), wanted)
        suggested, best = other, rest
    margin = best - given
    chosen = doubtful.nonzero().squeeze(1)
    order = chosen[margin[chosen].argsort(descending=True, stable=True)]
    return LabelErrors(order, suggested[order], margin[order], noise, given, (1 + given - rest) / 2)


def _filtered(filter: Filter, p: Tensor, own: Tensor, counts: Tensor, wanted: int) -> Tensor:
    """Marks doubtful samples, bool `[N]`, by the estimated counts of pairs of label and class, int64 `[K, K]`."""
    given = p.gather(1, own[:, None]).squeeze(1)
    if filter == "self-confidence":
        found = torch.zeros_like(own, dtype=torch.bool)
        found[given.argsort(stable=True)[:wanted]] = True
        return found
    by_pair, by_class = torch.zeros_like(own, dtype=torch.bool), torch.zeros_like(own, dtype=torch.bool)
    for label in range(len(counts)):
        rows = (own == label).nonzero().squeeze(1)
        several = counts[label].clone()
        several[label] = 0
        order = given[rows].argsort(stable=True)
        by_class[rows[order[: int(several.sum())]]] = True
        margins = (p[rows] - given[rows, None]).argsort(dim=0, descending=True, stable=True)
        places = torch.arange(len(rows), device=p.device)[:, None]
        by_pair[rows[margins[places < several]]] = True
    found = {"noise-rate": by_pair, "class": by_class, "both": by_pair & by_class}[filter]
    # A label that the model finds likeliest is not doubtful, whatever the counts say.
    return found & (p.max(1).values > given)
