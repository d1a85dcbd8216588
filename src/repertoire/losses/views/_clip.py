"""The loss of CLIP: two towers, each side finds its partner, at a temperature that is learned."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from repertoire.losses.contracts._views import LearnedScale, check_views, full_precision, mean_over_pairs
from repertoire.ops import pair_logsumexp, unit_rows
from repertoire.ranges import Positive
from repertoire.registry import register

__all__ = ["CLIP", "clip_loss"]


def clip_loss(*views: Tensor, scale: float | Tensor = 1 / 0.07) -> Tensor:
    r"""The loss of CLIP: cross-entropy over all pairs of two towers, in both directions.

    Radford et al., *Learning Transferable Visual Models From Natural Language Supervision* (CLIP, 2021). With x and y
    the embeddings of N pairs, images and their captions say, scaled to unit length, and the scale s:

    .. math:: -\frac{1}{2N} \sum_i \left(\log \frac{\exp(s\,x_i \cdot y_i)}{\sum_j \exp(s\,x_i \cdot y_j)}
        + \log \frac{\exp(s\,x_i \cdot y_i)}{\sum_j \exp(s\,x_j \cdot y_i)}\right)

    With more than two towers, it is the mean over their pairs. No matrix of pairs is made.

    Args:
        views: two or more tensors, float `[N, d]`; row i of each is the same sample.
        scale: s, one over the temperature; a number, or a tensor without dimensions that may need a gradient.

    Returns:
        A scalar; float32 for half-precision embeddings; zero for an empty batch.

    Raises:
        ShapeError: fewer than two views, or views of different shapes or dtypes.

    Example:
        >>> import torch
        >>> from repertoire.losses import clip_loss
        >>> clip_loss(torch.eye(2), torch.eye(2), scale=1.0)  # log(e + 1) - 1
        tensor(0.3133)
    """
    check_views(views)
    with full_precision(*views) as z:
        z = [unit_rows(view) for view in z]
        rows = max(len(z[0]), 1)

        def loss(x: Tensor, y: Tensor) -> Tensor:
            both = pair_logsumexp(x, y, scale=scale).sum() + pair_logsumexp(y, x, scale=scale).sum()
            return (0.5 * both - scale * (x * y).sum()) / rows

        return mean_over_pairs(z, loss)


@register("losses", "clip", paper="clip")
class CLIP(LearnedScale):
    r"""The loss of CLIP: cross-entropy over all pairs of two towers, in both directions, at a learned temperature.

    The module form of :func:`repertoire.losses.clip_loss`, which gives the paper and the formula. Hand its parameter to
    the optimiser, without weight decay: it is the logarithm of the scale, which is kept from exceeding
    `1 / least_temperature` as in the paper.

    Args:
        temperature: at the start, positive; 0.07 in the paper.
        least_temperature: the least that it may become, positive; 0.01 in the paper.
        learn: whether the temperature is learned.

    Attributes:
        log_scale: the logarithm of one over the temperature, a tensor without dimensions.

    Shapes:
        two or more towers, each float `[N, d]`.

    Raises:
        ConfigError: a temperature that is not positive, or that is below the least.

    Example:
        >>> import torch
        >>> from repertoire.losses import CLIP
        >>> CLIP(temperature=1.0)(torch.eye(2), torch.eye(2)).detach()
        tensor(0.3133)
    """

    def __init__(
        self,
        temperature: Annotated[float, Positive] = 0.07,
        least_temperature: Annotated[float, Positive] = 0.01,
        learn: bool = True,
    ) -> None:
        super().__init__(temperature, least_temperature, learn)

    def forward(self, *views: Tensor) -> Tensor:  # type: ignore[override]
        """The loss of two or more towers `[N, d]`."""
        return clip_loss(*views, scale=self.scale)
