"""The sigmoid loss of SigLIP: each pair of two towers is a question of its own."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from repertoire.losses.contracts._views import LearnedScale, check_views, full_precision, mean_over_pairs
from repertoire.ops import pair_sum, unit_rows
from repertoire.ranges import Finite, Positive
from repertoire.registry import register

__all__ = ["SigmoidPairwise", "sigmoid_pairwise_loss"]


def sigmoid_pairwise_loss(*views: Tensor, scale: float | Tensor = 10.0, bias: float | Tensor = -10.0) -> Tensor:
    r"""The sigmoid loss of SigLIP: of each pair of two towers, whether the two belong together.

    Zhai et al., *Sigmoid Loss for Language Image Pre-Training* (SigLIP, 2023). With x and y the embeddings of N pairs
    scaled to unit length, :math:`s_{ij} = t\,x_i \cdot y_j + b`, and :math:`\pm` plus for i = j:

    .. math:: -\frac1N \sum_{ij} \log \sigma(\pm s_{ij})

    There is no softmax, so that no pair depends on another: it works with small batches, and large ones can be summed
    in any pieces. Most pairs do not belong together; the bias, which starts far below zero, says so from the beginning.
    With more than two towers it is the mean over their pairs. No matrix of pairs is made.

    Args:
        views: two or more tensors, float `[N, d]`; row i of each is the same sample.
        scale: t, positive; a number, or a tensor without dimensions that may need a gradient.
        bias: b; a number, or a tensor without dimensions that may need a gradient.

    Returns:
        A scalar; float32 for half-precision embeddings; zero for an empty batch.

    Raises:
        ShapeError: fewer than two views, or views of different shapes or dtypes.

    Example:
        >>> import torch
        >>> from repertoire.losses import sigmoid_pairwise_loss
        >>> sigmoid_pairwise_loss(torch.eye(2), torch.eye(2), scale=1.0, bias=0.0)  # log(1 + 1/e) + log 2
        tensor(1.0064)
    """
    check_views(views)
    with full_precision(*views) as z:
        z = [unit_rows(view) for view in z]
        rows = len(z[0])
        offset = torch.as_tensor(bias, dtype=z[0].dtype, device=z[0].device)

        def loss(x: Tensor, y: Tensor) -> Tensor:
            # As if no pair belonged together; softplus(-s) = softplus(s) - s mends those that do.
            apart = pair_sum(x, y, "softplus", scale=scale, bias=offset.expand(rows)).sum()
            return (apart - scale * (x * y).sum() - rows * offset) / max(rows, 1)

        return mean_over_pairs(z, loss)


@register("losses", "sigmoid-pairwise", paper="siglip")
class SigmoidPairwise(LearnedScale):
    r"""The sigmoid loss of SigLIP: of each pair of two towers, whether the two belong together.

    The module form of :func:`repertoire.losses.sigmoid_pairwise_loss`, which gives the paper and the formula. Hand its
    parameters to the optimiser, without weight decay.

    Args:
        temperature: one over the scale t at the start, positive; 0.1 in the paper.
        bias: b at the start; -10 in the paper.
        learn: whether both are learned.
        least_temperature: the least that the temperature may become, positive; the paper has no bound, and an
            overshooting step without one makes the loss infinite.

    Attributes:
        log_scale: the logarithm of t, a tensor without dimensions.
        bias: b, a tensor without dimensions.

    Shapes:
        two or more towers, each float `[N, d]`.

    Raises:
        ConfigError: a temperature that is not positive, or that is below the least.

    Example:
        >>> import torch
        >>> from repertoire.losses import SigmoidPairwise
        >>> SigmoidPairwise(temperature=1.0, bias=0.0)(torch.eye(2), torch.eye(2)).detach()
        tensor(1.0064)
    """

    def __init__(
        self,
        temperature: Annotated[float, Positive] = 0.1,
        bias: Annotated[float, Finite] = -10.0,
        learn: bool = True,
        least_temperature: Annotated[float, Positive] = 0.01,
    ) -> None:
        super().__init__(temperature, least_temperature, learn)
        self.bias = nn.Parameter(torch.tensor(float(bias)), requires_grad=learn)

    def forward(self, *views: Tensor) -> Tensor:  # type: ignore[override]
        """The loss of two or more towers `[N, d]`."""
        return sigmoid_pairwise_loss(*views, scale=self.scale, bias=self.bias)
