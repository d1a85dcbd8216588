"""Entropy of the mean prediction: over a batch, answers should be as varied as the classes are."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses.contracts._classes import at_least_float32
from repertoire.losses.contracts._predictions import PredictionsLoss, check_predictions
from repertoire.ranges import checked
from repertoire.registry import register

__all__ = ["MeanEntropy", "mean_entropy"]


@checked
def mean_entropy(logits: Tensor, *, prior: Tensor | None = None) -> Tensor:
    r"""Divergence of the mean prediction of a batch from the shares of the classes, so that none is left out.

    Fluss, Hacohen and Weinshall, *Semi-Supervised Learning in the Few-Shot Zero-Shot Scenario* (2023). With the
    predictions p of N samples without labels and the shares :math:`\pi` of K classes:

    .. math:: \bar p = \frac{1}{N} \sum_i p_i, \qquad
              \ell = \sum_c \bar p_c \log \frac{\bar p_c}{\pi_c}

    With even shares that is log K less the entropy of the mean prediction, which the paper maximises: zero where all
    classes are predicted equally often, and log K where all samples are given to one. A class for which there is no
    label then has an output of its own to claim.

    A mean over few samples is uneven by chance: the batch should hold several samples of each class.

    Args:
        logits: float `[N, K]`, raw.
        prior: shares or counts of the classes, positive `[K]`; even by default.

    Returns:
        A scalar, 0 or more; float32 for half-precision logits, else of their dtype. Zero for no samples.

    Raises:
        ShapeError: logits of another shape or dtype, or a prior of another length.
        ConfigError: a prior that is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import mean_entropy
        >>> one_class, both = torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([[9.0, 0.0], [0.0, 9.0]])
        >>> [round(float(mean_entropy(logits)), 3) for logits in (one_class, both)]
        [0.692, 0.0]
    """
    check_predictions(logits)
    z = at_least_float32(logits)
    if not len(z):
        return z.sum()
    classes = z.shape[1]
    if prior is None:
        shares = torch.ones(classes, dtype=z.dtype, device=z.device)
    else:
        _check_prior(prior, classes)
        shares = prior.to(z)
    mean = z.softmax(1).mean(0)
    # Clamped: a class that nobody predicts adds nothing, with a finite gradient.
    smallest = torch.finfo(mean.dtype).tiny
    return (mean * (mean.clamp_min(smallest).log() - (shares / shares.sum()).log())).sum()


def _check_prior(prior: Tensor, classes: int) -> None:
    if prior.shape != (classes,):
        raise ShapeError(f"prior must be [{classes}], a share for each class; found {list(prior.shape)}")
    # Values are looked at where it costs no wait for the device.
    if prior.device.type == "cpu" and not torch.compiler.is_compiling() and not bool((prior > 0).all()):
        raise ConfigError(f"prior must be positive, found {prior.tolist()}")


@register("losses", "mean-entropy", paper="ssl-zero-shot-classes")
class MeanEntropy(PredictionsLoss, function=mean_entropy):
    """Module form of `mean_entropy`."""
