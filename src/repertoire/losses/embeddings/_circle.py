"""Circle loss: each pair is optimised at a pace of its own."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.losses.contracts._base import EmbeddingLoss, check_embeddings
from repertoire.losses.contracts._positives import group, mean_over, poison
from repertoire.ops import pair_max, pair_min, pair_sum, unit_rows
from repertoire.ranges import Between, Positive, checked
from repertoire.registry import register

__all__ = ["Circle", "circle_loss"]


@checked
def circle_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    margin: Annotated[float, Between(-1, 1, "()")] = 0.4,
    gamma: Annotated[float, Positive] = 80.0,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
) -> Tensor:
    r"""Circle loss: a pair counts the more, the further its cosine is from where it should be.

    Sun et al., *Circle Loss: A Unified Perspective of Pair Similarity Optimization* (2020). With s the cosines of
    anchor i, positives P and negatives N, and m the margin:

    .. math::
        \ell_i = \log\Bigl(1 + \sum_{n \in N_i} e^{\gamma\, \alpha_n (s_{in} - m)}
                               \sum_{p \in P_i} e^{-\gamma\, \alpha_p (s_{ip} - 1 + m)}\Bigr), \qquad
        \alpha_n = [s_{in} + m]_+, \quad \alpha_p = [1 + m - s_{ip}]_+

    The weights alpha are constants to the gradient. The loss is the mean over the anchors with a positive.

    No pair is ever stored: the hardest pairs, which keep the sums in range, and both sums are streamed.

    Args:
        embeddings: float `[N, d]` of any length.
        labels: int64 `[N]` of any values.
        margin: m, in (-1, 1); the paper uses 0.4 for fine-grained retrieval and 0.25 for faces.
        gamma: sharpness, positive; the paper uses 80 for fine-grained retrieval and 256 for faces.
        reference: float `[M, d]`, what the embeddings are compared with in place of each other.
        reference_labels: int64 `[M]`.

    Returns:
        A scalar; float32 for half-precision embeddings. Zero, with a zero gradient, if no row has a positive.

    Raises:
        ShapeError: shapes or dtypes that do not fit.
        ConfigError: gamma is not positive, or the margin out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import circle_loss
        >>> circle_loss(torch.eye(4), torch.tensor([0, 0, 1, 1]), gamma=1.0)  # log(1 + 2 e^-0.16 e^0.84)
        tensor(1.5989)
    """
    check_embeddings(embeddings, labels, reference, reference_labels)
    groups = group(labels, reference_labels)
    z = unit_rows(embeddings)
    y = None if reference is None else unit_rows(reference)
    same, different = groups.pairs("same"), groups.pairs("different")

    def negative(s: Tensor) -> Tensor:
        return gamma * (s.detach() + margin).clamp_min(0) * (s - margin)

    def positive(s: Tensor) -> Tensor:
        return -gamma * (1 + margin - s.detach()).clamp_min(0) * (s - 1 + margin)

    with torch.no_grad():
        # Neither exponent exceeds that of its hardest pair or zero, and neither is less than -gamma m².
        least = pair_min(z, y, **same).values
        most = pair_max(z, y, **different).values
        top_positive = positive(least.clamp(-1, 1)).clamp_min(0)
        top_negative = negative(most.clamp(-1, 1)).clamp_min(0)

    # What exceeds it, by more than a rounding, are pairs that do not count, such as a row with itself.
    def exp_negative(tile: Tensor, rows: slice, columns: slice) -> Tensor:
        return (negative(tile) - top_negative[rows, None]).clamp_max(1).exp()

    def exp_positive(tile: Tensor, rows: slice, columns: slice) -> Tensor:
        return (positive(tile) - top_positive[rows, None]).clamp_max(1).exp()

    pushed = pair_sum(z, y, exp_negative, **different)
    pulled = pair_sum(z, y, exp_positive, **same)
    # Of an anchor without negatives the sum is zero, and so is the loss.
    both = groups.anchors & (pushed > 0)
    exponent = _log(pushed, both) + top_negative + _log(pulled, both) + top_positive
    return mean_over(F.softplus(exponent).masked_fill(~both, 0.0), groups.anchors) + poison(z, y)


def _log(values: Tensor, chosen: Tensor) -> Tensor:
    return values.masked_fill(~chosen, 1.0).log()


@register("losses", "circle")
class Circle(EmbeddingLoss, function=circle_loss):
    """Module form of `circle_loss`."""
