"""Label-encoding risk: what a network says of each class, averaged, should look like that class's own label."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.losses.contracts._predictions import PredictionsLoss, check_predictions
from repertoire.losses.contracts._views import full_precision
from repertoire.registry import register

__all__ = ["LabelEncodingRisk", "label_encoding_risk"]


def label_encoding_risk(logits: Tensor) -> Tensor:
    r"""Mean distance between the average prediction for each class and that class's one-hot label.

    Zhang et al., *Rethinking Guidance Information to Utilize Unlabeled Samples: A Label Encoding Perspective* (2024).
    With the predictions :math:`p_i = \mathrm{softmax}(f_i)` of N samples, each class c has a mean prediction, in which
    every sample counts by how far it is taken for one of c:

    .. math::
        M_{ck} = \frac{\sum_i p_{ic}\,p_{ik}}{\sum_i p_{ic}}, \qquad
        \ell = \frac{1}{C^2} \sum_{c, k} \bigl| M_{ck} - [c = k] \bigr|

    It is 0 exactly where every prediction is certain and every class occurs: predictions are to be sure, as entropy
    minimisation asks, and varied, which that forgets. The mean over all entries is that of the authors' code, which
    weights the loss by 0.1 (CIFAR-10 with four labels a class) to 1; there predictions of strongly augmented views are
    added with a tenth of the weight.

    Two corners that the paper leaves open. The share of a sample in a class is computed from logarithms, so that a
    class whose probabilities underflow has a mean all the same; the authors' division of zero by zero gives no number.
    And of fewer samples than classes not all classes can occur, so that only the N classes with the largest sums are
    compared, among themselves.

    Args:
        logits: float `[N, C]`, raw; of a whole batch, since M is one of all its samples.

    Returns:
        A scalar in [0, 2 / C]; 0 for no samples. float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: logits of another shape or dtype.

    Example:
        >>> import torch
        >>> from repertoire.losses import label_encoding_risk
        >>> sure = torch.tensor([[200.0, 0.0], [0.0, 200.0]])
        >>> label_encoding_risk(sure)  # certain and varied
        tensor(0.)
        >>> label_encoding_risk(sure[[0, 0]])  # certain, and all alike
        tensor(0.5000)
        >>> label_encoding_risk(torch.zeros(2, 2))
        tensor(0.5000)
    """
    check_predictions(logits)
    count, classes = logits.shape
    with full_precision(logits) as (wide,):
        if not count or not classes:
            return wide.sum()
        log_p = wide.log_softmax(1)
        p = log_p.exp()
        if count < classes:
            seen = p.detach().sum(0).topk(count).indices
            log_p, p = log_p[:, seen], p[:, seen]
        # The shares of the samples in each class from logarithms: of probabilities that underflow, too.
        means = log_p.softmax(0).T @ p
        return (means - torch.eye(len(means), dtype=p.dtype, device=p.device)).abs().mean()


@register("losses", "label-encoding", paper="lerm")
class LabelEncodingRisk(PredictionsLoss, function=label_encoding_risk):
    """Module form of `label_encoding_risk`."""
