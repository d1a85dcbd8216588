"""Normalised softmax: a cosine classifier at a fixed temperature, whose features serve for classes it never saw."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from repertoire.heads._cosine import ScaledCosine
from repertoire.ops import unit_rows
from repertoire.ranges import Positive
from repertoire.registry import register

__all__ = ["NormalizedSoftmax"]


@register("heads", "normalized-softmax", paper="hyperspherical-novel")
class NormalizedSoftmax(ScaledCosine):
    r"""Normalised softmax: cosines at a fixed temperature, whose features tell classes apart that it never saw.

    Pereira et al., *Hyperspherical Embedding for Novel Class Classification* (2021), with the normalised softmax of
    Zhai and Wu, *Classification is a Strong Baseline for Deep Metric Learning* (2019):

    .. math:: f_k = \frac{1}{\tau} \frac{z \cdot w_k}{\lVert z \rVert\,\lVert w_k \rVert}

    Trained with cross-entropy, and without pairs, it puts the features of a class close together on the sphere. That
    they lie on it is the constraint of the paper: a class that was not there in training is then recognised by the
    nearest mean, or the nearest neighbour, of a few :meth:`embedded <embed>` samples of it.

    Args:
        in_features: d, width of the features `[N, d]`.
        num_classes: C, width of the logits `[N, C]`.
        temperature: tau, positive; 0.05 as in Zhai and Wu.

    Shapes:
        features float `[N, d]` to logits `[N, C]`; float32 for half-precision features.

    Raises:
        ConfigError: the temperature is not a positive number.

    Example:
        >>> import torch
        >>> from repertoire.heads import NormalizedSoftmax
        >>> head, z = NormalizedSoftmax(8, 3), torch.randn(2, 8)
        >>> head(z).shape, head.embed(z).norm(dim=1).round(decimals=4)
        (torch.Size([2, 3]), tensor([1., 1.]))
    """

    def __init__(self, in_features: int, num_classes: int, temperature: Annotated[float, Positive] = 0.05) -> None:
        super().__init__(in_features, num_classes, scale=1 / temperature, learn_scale=False)

    def embed(self, features: Tensor) -> Tensor:
        """Features `[N, d]` scaled to unit length, to compare by cosine."""
        return unit_rows(features)
