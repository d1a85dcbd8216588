"""Selection without looking: what every other selector has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.registry import register
from repertoire.select._contract import check_budget

__all__ = ["at_random"]


@register("selectors", "random")
def at_random(count: int, budget: int, generator: torch.Generator | None = None) -> Tensor:
    """Takes samples at random: what every other selector has to beat.

    Args:
        count: N, how many samples there are.
        budget: how many, from 1 to N.
        generator: on the CPU; torch's own if None.

    Returns:
        int64 `[budget]`, none twice.

    Raises:
        ConfigError: a budget out of range.

    Example:
        >>> import torch
        >>> from repertoire.select import at_random
        >>> at_random(10, 3, torch.Generator().manual_seed(0)).shape
        torch.Size([3])
    """
    check_budget(budget, count)
    return torch.randperm(count, generator=generator)[:budget]
