"""Selection by coverage: every sample shall be near one that is labelled."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.registry import register
from repertoire.select._contract import check_budget, check_features

__all__ = ["coreset"]

_ROWS = 4096


@register("selectors", "coreset")
@torch.no_grad()
def coreset(features: Tensor, budget: int, labelled: Tensor | None = None) -> Tensor:
    r"""Takes, again and again, the sample that is farthest from all that are labelled or taken: k-centre greedy.

    Sener and Savarese, *Active Learning for Convolutional Neural Networks: A Core-Set Approach* (2018). With the
    labelled and chosen samples S, the next one is

    .. math:: \arg\max_i \min_{j \in S} \lVert z_i - z_j \rVert_2

    which keeps the largest distance of any sample to its nearest labelled one within twice what is possible. This is
    the paper's greedy method, without its mixed integer programme, which gains little. Where nothing is labelled, the
    sample nearest to the mean comes first.

    Args:
        features: float `[N, d]`.
        budget: how many, from 1 to N.
        labelled: float `[M, d]`, the features of samples that have a label already; none if None.

    Returns:
        int64 `[budget]`, in the order in which they were taken. Memory is O(N).

    Raises:
        ShapeError: features that are no finite matrices of one width. ConfigError: a budget out of range.

    Example:
        >>> import torch
        >>> from repertoire.select import coreset
        >>> coreset(torch.tensor([[0.0], [1.0], [5.0], [9.0]]), 2, labelled=torch.tensor([[0.0]]))
        tensor([3, 2])
    """
    check_features(features, labelled)
    check_budget(budget, len(features))
    z = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
    if labelled is None or not len(labelled):
        first = int((z - z.mean(0)).square().sum(1).argmin())
        chosen, nearest = [first], _to(z, first)
    else:
        chosen = []
        nearest = torch.cat([torch.cdist(part, labelled.to(z)).amin(1).square() for part in z.split(_ROWS)])
    taken = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    taken[chosen] = True
    while len(chosen) < budget:
        # Copies of what is taken are at no distance, and still have to be told from it.
        following = int(nearest.masked_fill(taken, -1).argmax())
        chosen.append(following)
        taken[following] = True
        nearest = torch.minimum(nearest, _to(z, following))
    return torch.tensor(chosen, device=features.device)


def _to(z: Tensor, row: int) -> Tensor:
    """Squared distances `[N]` to one of the rows."""
    return (z - z[row]).square().sum(1)
