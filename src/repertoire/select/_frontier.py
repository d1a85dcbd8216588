"""Selection of what is only just known, without what is known of nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.select._contract import check_budget

__all__ = ["frontier"]


def frontier(scores: Tensor, budget: int, floor: float) -> Tensor:
    """Takes the samples that are known least among those that a novelty score does not reject.

    Mundt et al., *A Wholistic View of Continual Learning with Deep Neural Networks: Forgotten Lessons and the Bridge to
    Active and Open World Learning* (2020): what an open-set score is far from is worth a label only as far as it is of
    a known class at all; beyond, there are corrupted samples and strangers, which a label is wasted on and which the
    most uncertain samples are full of.

    Args:
        scores: floating point `[N]`, higher for what is known better (room `openset`).
        budget: how many, from 1 to N.
        floor: the score below which samples are rejected; a quantile of those of known samples, say.

    Returns:
        int64 `[budget]`: the least known above the floor first; where there are fewer, those nearest below it.

    Raises:
        ShapeError: scores that are no finite vector. ConfigError: a budget out of range.

    Example:
        >>> import torch
        >>> from repertoire.select import frontier
        >>> frontier(torch.tensor([0.9, 0.1, 0.5, 0.4]), 3, floor=0.3)
        tensor([3, 2, 0])
    """
    if scores.ndim != 1 or not scores.is_floating_point() or not bool(scores.isfinite().all()):
        raise ShapeError(f"scores must be finite floating point numbers [N], found {scores.dtype} {list(scores.shape)}")
    check_budget(budget, len(scores))
    below = scores < floor
    # Those below come last, the nearest to the floor first.
    by_score = torch.where(below, -scores, scores).argsort(stable=True)
    return by_score[below[by_score].to(torch.int8).argsort(stable=True)][:budget]
