"""A classifier on the angle between features and class vectors."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn

from repertoire.heads._base import Head, cosines
from repertoire.ranges import Positive
from repertoire.registry import register

__all__ = ["Cosine", "ScaledCosine"]


class ScaledCosine(Head):
    """Base of heads whose logits are cosines times a scale, which is kept as its logarithm.

    Args:
        in_features: width of the features.
        num_classes: width of the logits.
        scale: at the start, positive.
        learn_scale: whether it is a parameter, or a buffer.
    """

    log_scale: Tensor
    per_class = ("weight",)

    def __init__(self, in_features: int, num_classes: int, scale: float, learn_scale: bool) -> None:
        super().__init__(in_features, num_classes)
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as nn.Linear; only the direction matters
        log_scale = torch.tensor(math.log(scale))
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    @property
    def scale(self) -> Tensor:
        """s, a positive scalar."""
        return self.log_scale.exp()

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits `[N, C]` of features `[N, d]`; targets are not looked at."""
        self.check_features(features)
        return self.scale * cosines(features, self.weight)


@register("heads", "cosine")
class Cosine(ScaledCosine):
    r"""Cosine classifier: the angle between features and class vectors, on a scale that is learned.

    Gidaris and Komodakis, *Dynamic Few-Shot Visual Learning without Forgetting* (2018):

    .. math::
        s \, \frac{z \cdot w_k}{\lVert z \rVert \, \lVert w_k \rVert}

    The length of neither side matters, so classes of any frequency get class vectors of the same weight. Cosines lie
    in [-1, 1], too narrow a range for a softmax, which is why there is a scale. It is kept as its logarithm, so that it
    stays positive whatever the learning rate.

    Args:
        in_features: d, width of the features `[N, d]`.
        num_classes: C, width of the logits `[N, C]`.
        scale: s at the start, positive; 10 by default.
        learn_scale: whether s is a parameter (default) or stays as it is.

    Shapes:
        features float `[N, d]` to logits `[N, C]` in [-s, s]; float32 for half-precision features. The logits of a zero
        vector are 0.

    Raises:
        ConfigError: the scale is not a positive number.

    Example:
        >>> import torch
        >>> from repertoire.heads import Cosine
        >>> head = Cosine(8, 3, scale=10.0)
        >>> z = torch.randn(2, 8)
        >>> torch.allclose(head(z), head(5 * z), atol=1e-5)
        True
    """

    def __init__(
        self, in_features: int, num_classes: int, scale: Annotated[float, Positive] = 10.0, learn_scale: bool = True
    ) -> None:
        super().__init__(in_features, num_classes, scale, learn_scale)
