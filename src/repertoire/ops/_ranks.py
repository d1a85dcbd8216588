"""Rows of all ranks of a run on several devices."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

__all__ = ["of_all_ranks"]


def of_all_ranks(values: Tensor) -> Tensor:
    """The rows of all ranks, one rank after the other; without gradient. The same rows where there is one process only.

    Args:
        values: `[N, ...]`; N may differ from rank to rank, and all else must not.

    Returns:
        `[M, ...]`, the same on every rank.

    Example:
        >>> import torch
        >>> from repertoire.ops import of_all_ranks
        >>> of_all_ranks(torch.tensor([3, 4]))
        tensor([3, 4])
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return values
    count = torch.tensor([len(values)], device=values.device)
    counts = [torch.zeros_like(count) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, count)
    lengths = [int(c) for c in counts]
    padded = values.new_zeros(max(lengths), *values.shape[1:])
    padded[: len(values)] = values
    gathered = [torch.empty_like(padded) for _ in lengths]
    distributed.all_gather(gathered, padded)
    return torch.cat([rows[:length] for rows, length in zip(gathered, lengths, strict=True)])
