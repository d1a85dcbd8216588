"""CosFace: a margin on the cosine to the right class."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from repertoire.heads._margin import MarginHead
from repertoire.ranges import Between, Positive
from repertoire.registry import register

__all__ = ["CosFace"]


@register("heads", "cosface")
class CosFace(MarginHead):
    r"""CosFace: scaled cosines, and while training a margin on that of the right class.

    Wang et al., *CosFace: Large Margin Cosine Loss for Deep Face Recognition* (2018):

    .. math::
        f_k = s \cos\theta_k \; (k \ne y), \qquad f_y = s (\cos\theta_y - m), \qquad
        \cos\theta_k = \frac{z \cdot w_k}{\lVert z \rVert\,\lVert w_k \rVert}

    Args:
        in_features: d, width of the features `[N, d]`.
        num_classes: C, width of the logits `[N, C]`.
        scale: s, positive; 64 in the paper. Few classes and small networks want less.
        margin: m, from 0 to 2, the range of cosines; 0.35 in the paper.

    Shapes:
        features float `[N, d]` to logits `[N, C]` in [-s, s], but for the margin; float32 for half-precision features.

    Raises:
        ConfigError: the scale is not a positive number, or the margin out of range.

    Example:
        >>> import torch
        >>> from repertoire.heads import CosFace
        >>> head, z = CosFace(8, 3, scale=10.0, margin=0.35), torch.randn(2, 8)
        >>> (head(z) - head(z, torch.tensor([0, 2]))).detach().round(decimals=2)
        tensor([[3.5000, 0.0000, 0.0000],
                [0.0000, 0.0000, 3.5000]])
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        scale: Annotated[float, Positive] = 64.0,
        margin: Annotated[float, Between(0, 2)] = 0.35,
    ) -> None:
        super().__init__(in_features, num_classes, scale)
        self.margin = margin

    def with_margin(self, right: Tensor, cosines: Tensor, targets: Tensor) -> Tensor:
        """The cosines `[N]` less the margin."""
        return right - self.margin
