"""MadaCos: scale and margin that follow the median cosine of the batch."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from repertoire.heads._margin import MarginHead
from repertoire.ops import Memory
from repertoire.ranges import Between
from repertoire.registry import register

__all__ = ["MadaCos"]

# The constant of the paper's scale, how close the median may come to 1 (beyond, the scale would overflow), and the
# smallest scale.
_LARGE, _CLOSEST, _SMALLEST = 9_999_999, 1e-3, 32.0


@register("heads", "madacos", paper="cfcd")
class MadaCos(MarginHead, Memory):
    r"""MadaCos: scaled cosines and a margin, both of which follow the batch, so that there is nothing to tune.

    Zhu et al., *Coarse-to-Fine: Learning Compact Discriminative Representation for Single-Stage Image Retrieval*
    (2023):

    .. math::
        f_k = s \cos\theta_k \; (k \ne y), \quad f_y = s (\cos\theta_y - m), \qquad
        s = \max\left(32, \frac{\log \frac{K (1 - \rho)}{\rho}}{1 - \mu}\right), \quad
        m = \max\left(0, \mu - \frac{1}{s} \log \frac{\rho B}{1 - \rho}\right)

    where mu is the median over the batch of the cosines to the right class, B the sum of
    :math:`e^{s \cos\theta_k}` over the other classes for the sample that has it, and K = 9999999. Where m is positive,
    the right class of the sample in the middle has the probability rho: however far training has come, there is
    something to learn. Neither s nor m has a gradient. Both are part of the state, which changes once the
    weights have changed (`after_update`), and predictions use the last s.

    Each rank takes the median of its own batch, and keeps the mean over ranks; the released code takes that of all.

    Args:
        in_features: d, width of the features `[N, d]`.
        num_classes: C, width of the logits `[N, C]`.
        probability: rho, in (0, 1), of the right class for the median sample.

    Shapes:
        features float `[N, d]` to logits `[N, C]`; float32 for half-precision features.

    Raises:
        ConfigError: a probability out of range.

    Example:
        >>> import torch
        >>> from repertoire.heads import MadaCos
        >>> head, y = MadaCos(8, 3), torch.tensor([0, 1, 2])
        >>> z = head.weight.detach() + 0.1 * torch.randn(3, 8)  # late in training, close to the class vectors
        >>> bool((head(z, y).softmax(1).gather(1, y[:, None]) > 0.099).sum() >= 1)
        True
    """

    margin: Tensor

    remembers: ClassVar[dict[str, Literal["rows", "mean"]]] = {"scale": "mean", "margin": "mean"}

    def __init__(
        self, in_features: int, num_classes: int, probability: Annotated[float, Between(0, 1, "()")] = 0.1
    ) -> None:
        super().__init__(in_features, num_classes, _SMALLEST)
        self.probability = probability
        self.register_buffer("margin", torch.tensor(0.0))

    def with_margin(self, right: Tensor, cosines: Tensor, targets: Tensor) -> Tensor:
        """The cosines `[N]` less the margin of the last update."""
        return right - self.margin

    def adjusted(self, right: Tensor, cosines: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The scale and the margin of this batch, which are those of predictions once the weights have changed."""
        if not len(right):
            return super().adjusted(right, cosines, targets)
        scale, margin = self._of_batch(right.detach(), cosines.detach(), targets)
        self.remember(len(right), scale=scale, margin=margin)
        return scale, right - margin

    @torch.no_grad()
    def _of_batch(self, right: Tensor, cosines: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        rho = self.probability
        median, row = right.masked_fill(targets < 0, torch.nan).nanmedian(0)
        scale = math.log(_LARGE * (1 - rho) / rho) / (1 - median).clamp_min(_CLOSEST)
        scale = scale.clamp_min(_SMALLEST)
        wrong = torch.arange(self.num_classes, device=targets.device) != targets[row]
        others = (scale * cosines[row]).masked_fill(~wrong, -torch.inf).logsumexp(0)
        margin = (median - (math.log(rho / (1 - rho)) + others) / scale).clamp(0.0, 2.0)
        seen = ~median.isnan()  # none, where no sample has a label
        return scale.where(seen, self.scale.to(scale)), margin.where(seen, self.margin.to(margin))

    def commit(self, scale: Tensor, margin: Tensor) -> None:
        """Keeps the scale and the margin of a step."""
        self.scale.copy_(scale)
        self.margin.copy_(margin)
