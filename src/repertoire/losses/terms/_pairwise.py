"""Whether two rows are of one class: a loss on pairs of predictions, and what says so without labels."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.ranges import AtLeast, checked

__all__ = ["pairwise_bce_loss", "same_rank"]


def pairwise_bce_loss(probabilities: Tensor, others: Tensor, same: Tensor) -> Tensor:
    r"""Binary cross-entropy of whether two rows are of one class, by the product of their predictions.

    Hsu, Lv and Kira, *Learning to Cluster in Order to Transfer Across Domains and Tasks* (2018), as Han et al.,
    *Automatically Discovering and Learning New Visual Categories with Ranking Statistics* (2020) use it:

    .. math:: \ell = -\frac{1}{N M} \sum_{ij} s_{ij} \log p_i \cdot q_j + (1 - s_{ij}) \log (1 - p_i \cdot q_j)

    Args:
        probabilities: float `[N, K]`, rows that sum to 1.
        others: float `[M, K]`, of the rows they are paired with; another view of the same rows, say.
        same: bool `[N, M]`, whether two are of one class.

    Returns:
        A scalar, 0 or more; float32 for half precision. Products are kept 1e-6 away from 0 and 1.

    Raises:
        ShapeError: shapes or dtypes that do not fit.

    Example:
        >>> import torch
        >>> from repertoire.losses import pairwise_bce_loss
        >>> p = torch.tensor([[0.5, 0.5]])
        >>> pairwise_bce_loss(p, p, torch.tensor([[True]]))
        tensor(0.6931)
    """
    if probabilities.ndim != 2 or others.ndim != 2 or probabilities.shape[1] != others.shape[1]:
        raise ShapeError(
            f"probabilities and others must be [N, K] and [M, K], found {list(probabilities.shape)} and "
            f"{list(others.shape)}"
        )
    if not probabilities.is_floating_point() or not others.is_floating_point():
        raise ShapeError(f"probabilities must be floating point, found {probabilities.dtype} and {others.dtype}")
    if same.shape != (len(probabilities), len(others)) or same.dtype != torch.bool:
        raise ShapeError(
            f"same must be bool {[len(probabilities), len(others)]}, found {same.dtype} {list(same.shape)}"
        )
    wide = torch.promote_types(probabilities.dtype, torch.float32)
    agree = (probabilities.to(wide) @ others.to(wide).T).clamp(1e-6, 1 - 1e-6)
    return -torch.where(same, agree.log(), (-agree).log1p()).mean()


@torch.no_grad()
@checked
def same_rank(features: Tensor, count: Annotated[int, AtLeast(1)] = 5) -> Tensor:
    """Pairs of rows whose largest features are the same ones, in any order.

    Han et al., *Automatically Discovering and Learning New Visual Categories with Ranking Statistics* (2020): such rows
    are taken to be of one class.

    Args:
        features: float `[N, d]`.
        count: how many of the largest are compared, from 1 to d; 5 by default, as in the paper.

    Returns:
        bool `[N, N]`.

    Raises:
        ShapeError: no floating point matrix, or fewer features than are compared.

    Example:
        >>> import torch
        >>> from repertoire.losses import same_rank
        >>> same_rank(torch.tensor([[3.0, 2.0, 0.0], [1.0, 2.0, 0.0], [0.0, 1.0, 2.0]]), count=2)
        tensor([[ True,  True, False],
                [ True,  True, False],
                [False, False,  True]])
    """
    if features.ndim != 2 or not features.is_floating_point() or features.shape[1] < count:
        raise ShapeError(
            f"features must be a floating point [N, d] with d of {count} or more, found {features.dtype} "
            f"{list(features.shape)}"
        )
    largest = features.topk(count, dim=1).indices.sort(dim=1).values
    _, index = largest.unique(dim=0, return_inverse=True)
    return index[:, None] == index
