"""Soft assignments of rows to columns of equal weight."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.ranges import AtLeast, Positive, checked

__all__ = ["sinkhorn"]


@torch.no_grad()
@checked
def sinkhorn(
    scores: Tensor, *, epsilon: Annotated[float, Positive] = 0.05, iterations: Annotated[int, AtLeast(1)] = 3
) -> Tensor:
    r"""Assigns rows to columns softly, so that every column gets about the same weight.

    Cuturi, *Sinkhorn Distances: Lightspeed Computation of Optimal Transport* (2013), in the form in which Caron et al.,
    *Unsupervised Learning of Visual Features by Contrasting Cluster Assignments* (2020) make pseudo-labels: the matrix
    :math:`\exp(s_{ik} / \epsilon)` is scaled by turns so that its columns, and then its rows, have equal sums. Computed
    with logarithms: nothing overflows, however large the scores are.

    Args:
        scores: float `[N, K]`, larger for what belongs together.
        epsilon: how soft; positive. 0.05 by default, for cosines.
        iterations: how often columns and rows are scaled, 1 or more. With 3 (default) columns are only about equal.

    Returns:
        float `[N, K]`: rows that sum to 1, columns that sum to about N / K; float32 for half precision. No gradient.

    Raises:
        ShapeError: no floating point matrix with a row and a column. ConfigError: an option out of range.

    Example:
        >>> import torch
        >>> from repertoire.ops import sinkhorn
        >>> sinkhorn(torch.tensor([[1.0, 0.9], [1.0, 0.0]]), iterations=20).argmax(1)
        tensor([1, 0])
    """
    if scores.ndim != 2 or not scores.is_floating_point() or not scores.numel():
        raise ShapeError(f"scores must be a floating point [N, K], found {scores.dtype} {list(scores.shape)}")
    log_q = scores.to(torch.promote_types(scores.dtype, torch.float32)) / epsilon
    for _ in range(iterations):
        log_q = log_q - log_q.logsumexp(0, keepdim=True)
        log_q = log_q - log_q.logsumexp(1, keepdim=True)
    return log_q.exp()
