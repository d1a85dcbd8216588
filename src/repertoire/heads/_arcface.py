"""ArcFace: a margin on the angle to the right class."""

from __future__ import annotations

import math
from typing import Annotated

from torch import Tensor

from repertoire.heads._margin import MarginHead
from repertoire.ranges import Between, Positive
from repertoire.registry import register

__all__ = ["ArcFace"]


@register("heads", "arcface")
class ArcFace(MarginHead):
    r"""ArcFace: scaled cosines, and while training a margin on the angle to the right class.

    Deng et al., *ArcFace: Additive Angular Margin Loss for Deep Face Recognition* (2019):

    .. math::
        f_k = s \cos\theta_k \; (k \ne y), \qquad f_y = s \cos(\theta_y + m), \qquad
        \cos\theta_k = \frac{z \cdot w_k}{\lVert z \rVert\,\lVert w_k \rVert}

    With cross-entropy on these logits the features of a class gather closer than it takes to tell the classes apart.
    Where the angle and the margin are more than a half turn together, the logit goes on falling as
    :math:`s (\cos\theta_y - m \sin m)`, as in the released code: by the formula it would rise again.

    Args:
        in_features: d, width of the features `[N, d]`.
        num_classes: C, width of the logits `[N, C]`.
        scale: s, positive; 64 in the paper. Few classes and small networks want less.
        margin: m in radians, from 0 to below pi / 2; 0.5 in the paper.

    Shapes:
        features float `[N, d]` to logits `[N, C]` in [-s, s], but for the margin; float32 for half-precision features.

    Raises:
        ConfigError: the scale is not a positive number, or the margin out of range.

    Example:
        >>> import torch
        >>> from repertoire.heads import ArcFace
        >>> head, z, y = ArcFace(8, 3), torch.randn(2, 8), torch.tensor([0, 2])
        >>> bool((head(z, y) < head(z)).sum() == 2)  # the right class of each
        True
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        scale: Annotated[float, Positive] = 64.0,
        margin: Annotated[float, Between(0, math.pi / 2, "[)")] = 0.5,
    ) -> None:
        super().__init__(in_features, num_classes, scale)
        self.margin = margin

    def with_margin(self, right: Tensor, cosines: Tensor, targets: Tensor) -> Tensor:
        """The cosines of the angles `[N]` with the margin added."""
        m = self.margin
        # Kept from zero, where a root has an infinite slope.
        sine = (1 - right.square()).clamp_min(1e-7).sqrt()
        return (right * math.cos(m) - sine * math.sin(m)).where(right > math.cos(math.pi - m), right - m * math.sin(m))
