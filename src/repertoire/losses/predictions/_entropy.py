"""Entropy of predictions: a network should be sure of samples that nobody labelled."""

from __future__ import annotations

from torch import Tensor

from repertoire.losses.contracts._base import Reduction, reduce
from repertoire.losses.contracts._classes import at_least_float32
from repertoire.losses.contracts._predictions import PredictionsLoss, check_predictions
from repertoire.ranges import checked
from repertoire.registry import register

__all__ = ["Entropy", "entropy_loss"]


@checked
def entropy_loss(logits: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Mean entropy of predictions, which asks a network to be sure of samples that nobody labelled.

    Grandvalet and Bengio, *Semi-supervised Learning by Entropy Minimization* (2004):

    .. math:: \ell_i = -\sum_c p_{ic} \log p_{ic}, \qquad p_i = \mathrm{softmax}(f_i)

    All samples in one class is a minimum too, and where classes are uneven an easy one:
    :func:`repertoire.losses.label_encoding_risk` asks for variety as well.

    Args:
        logits: float `[N, C]`, raw.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Returns:
        The loss, each sample's in [0, log C]; float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: logits of another shape or dtype.

    Example:
        >>> import torch
        >>> from repertoire.losses import entropy_loss
        >>> entropy_loss(torch.tensor([[0.0, 0.0], [1000.0, 0.0]]), reduction="none")
        tensor([0.6931, 0.0000])
    """
    check_predictions(logits)
    log_p = at_least_float32(logits).log_softmax(1)
    return reduce((log_p.exp() * -log_p).sum(1), reduction)


@register("losses", "entropy")
class Entropy(PredictionsLoss, function=entropy_loss):
    """Module form of `entropy_loss`."""
