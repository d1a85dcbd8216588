"""Selection by diverse gradients: unsure samples that teach different things."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.registry import register
from repertoire.select._contract import check_budget, check_features, check_probabilities

__all__ = ["badge"]


@register("selectors", "badge")
@torch.no_grad()
def badge(probabilities: Tensor, features: Tensor, budget: int, generator: torch.Generator | None = None) -> Tensor:
    r"""Takes samples whose gradients, for the label that the model believes in, are long and point apart.

    Ash et al., *Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds* (2020). The gradient of the
    cross-entropy with respect to the weights of the last layer, were the predicted class :math:`\hat y` right, is

    .. math:: g_i = \left(p_i - e_{\hat y_i}\right) \otimes z_i

    which is long where the model is unsure. The samples are drawn by k-means++ on these: each next one with a
    probability in proportion to its squared distance to the nearest one that was taken. As in the released code, the
    first is the one with the longest gradient.

    The products are never formed: distances come from :math:`g_i \cdot g_j = (a_i \cdot a_j)(z_i \cdot z_j)`.

    Args:
        probabilities: float `[N, C]`, rows that sum to 1.
        features: float `[N, d]`, what the last layer sees.
        budget: how many, from 1 to N.
        generator: on the CPU; torch's own if None.

    Returns:
        int64 `[budget]`, in the order in which they were drawn. Memory is O(N (C + d)).

    Raises:
        ShapeError: no distributions, no finite features, or not of the same samples. ConfigError: a budget out of
            range.

    Example:
        >>> import torch
        >>> from repertoire.select import badge
        >>> p, z = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.6, 0.4]]), torch.ones(3, 2)
        >>> badge(p, z, 1)
        tensor([1])
    """
    check_probabilities(probabilities)
    check_features(features)
    if len(features) != len(probabilities):
        raise ShapeError(
            f"features and probabilities must be of the same samples, found {len(features)} and {len(probabilities)}"
        )
    check_budget(budget, len(features))
    # The direction of p less its largest entry is all that is known, so it is kept in double precision.
    a, z = probabilities.double(), features.double()
    a = a.scatter_add(1, a.argmax(1, keepdim=True), -torch.ones_like(a[:, :1]))
    length = a.square().sum(1) * z.square().sum(1)
    chosen = [int(length.argmax())]
    taken = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    taken[chosen] = True
    nearest = torch.full_like(length, torch.inf)
    while len(chosen) < budget:
        last = chosen[-1]
        distance = length + length[last] - 2 * (a @ a[last]) * (z @ z[last])
        nearest = torch.minimum(nearest, distance.clamp_min(0)).masked_fill(taken, 0)
        # Where nothing is left at a distance, the rest are alike.
        share = nearest if float(nearest.sum()) > 0 else (~taken).double()
        edges = share.cpu().cumsum(0)
        point = torch.rand(1, generator=generator, dtype=torch.float64) * edges[-1]
        following = int(torch.searchsorted(edges, point, right=True).clamp_max(len(edges) - 1))
        if bool(taken[following]):  # at the very end of the sum
            following = int(share.argmax())
        chosen.append(following)
        taken[following] = True
    return torch.tensor(chosen, device=features.device)
