"""Decoupled softmax: a softmax for several labels a sample, in which they do not compete with each other."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.losses.contracts._base import Reduction, reduce
from repertoire.losses.contracts._multilabel import MultiLabelLoss, check_multilabel
from repertoire.ranges import Positive, checked
from repertoire.registry import register

__all__ = ["DecoupledSoftmax", "decoupled_softmax_loss"]


@checked
def decoupled_softmax_loss(
    logits: Tensor, targets: Tensor, *, temperature: Annotated[float, Positive] = 1.0, reduction: Reduction = "mean"
) -> Tensor:
    r"""Softmax for several labels a sample, in which they do not compete with each other.

    Gupta et al., *Dual-Encoders for Extreme Multi-Label Classification* (2024):

    .. math::
        \ell_i = -\sum_{p \in P_i} \log
            \frac{e^{f_{ip} / \tau}}{e^{f_{ip} / \tau} + \sum_{n \notin P_i} e^{f_{in} / \tau}}

    where P are the labels of sample i. A softmax over all labels would push a sample's labels down against each other,
    and reaches zero only where there is one; this one reaches zero for any number of them. With exactly one label it is
    cross-entropy. A sample without labels, or with all of them, has the loss zero.
    The released code divides the sum over the labels of a sample by their number; the formula does not.

    Args:
        logits: float `[N, C]`: of a classifier, or the similarities of N queries and C documents.
        targets: `[N, C]`, 1 where a label holds, 0 where it does not, -1 where nobody knows.
        temperature: tau, positive; 1 for the logits of a classifier, about 0.05 for cosines.
        reduction: "mean" (default) and "sum" over samples give a scalar, "none" gives `[N]`, summed over labels.

    Returns:
        The loss; float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) targets other than 0 and 1.

    Example:
        >>> import torch
        >>> from repertoire.losses import decoupled_softmax_loss
        >>> decoupled_softmax_loss(torch.zeros(1, 3), torch.tensor([[1, 1, 0]]))  # log 2 for each of the two
        tensor(1.3863)
    """
    logits, targets, known = check_multilabel(logits, targets, binary=True)
    scores = logits / temperature
    # The smallest number, not minus infinity: of that, a sample with every label would get the gradient NaN.
    negatives = scores.masked_fill((targets > 0) | ~known, torch.finfo(scores.dtype).min).logsumexp(1, keepdim=True)
    return reduce((targets * F.softplus(negatives - scores)).sum(1), reduction)


@register("losses", "decoupled-softmax", paper="dexml")
class DecoupledSoftmax(MultiLabelLoss, function=decoupled_softmax_loss):
    """Module form of `decoupled_softmax_loss`."""
