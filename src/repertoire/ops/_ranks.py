"""Rows of all ranks of a run on several devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed

__all__ = ["gather_rows", "of_all_ranks", "ranks_of"]

if TYPE_CHECKING:
    Group = distributed.ProcessGroup | None


def ranks_of(group: Group = None) -> int:
    """Number of processes of a group; all of the run if None, and 1 outside of one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size(group)


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
    if ranks_of() == 1:
        return values
    return _together(values.detach(), _facts([len(values)], values.device, None)[:, 0].tolist(), None)


def gather_rows(*values: Tensor, group: Group = None, seed: bool = False) -> tuple[list[Tensor], int | None]:
    """The rows of all ranks, one rank after the other, with a gradient: for a loss that all ranks compute of all rows.

    Where every rank computes the same loss of the same rows, each has the whole gradient already, and nothing need
    travel backward. What a rank's own rows get is that gradient, times the number of all rows over that of its own: the
    mean over the ranks, weighted by their rows (or plain, where they have equally many, as data-parallel training does
    it), is then the gradient of the loss.

    All ranks of the group must call this together. Tensors of one dtype travel in one message.

    Args:
        values: each `[N, ...]`, with the same N, which may differ from rank to rank.
        group: the ranks; all of them if None.
        seed: draw a number from torch's random state, which is the same on every rank: that of the first one.

    Returns:
        The tensors, each `[M, ...]`, in the same order on every rank; and the number, or None. In one process the
        tensors themselves, and None.

    Example:
        >>> import torch
        >>> from repertoire.ops import gather_rows
        >>> (rows,), _ = gather_rows(torch.eye(2))  # on each rank
        >>> rows.shape
        torch.Size([2, 2])
    """
    if ranks_of(group) == 1 or not values:
        return list(values), None
    own = [len(values[0]), int(torch.randint(2**62, ())) if seed else 0]
    facts = _facts(own, values[0].device, group).tolist()
    lengths = [count for count, _ in facts]
    found: dict[int, Tensor] = {}
    for dtype in dict.fromkeys(value.dtype for value in values):
        places = [place for place, value in enumerate(values) if value.dtype == dtype]
        columns = [values[place].flatten(1) if values[place].ndim > 1 else values[place][:, None] for place in places]
        rows = _Rows.apply(group, lengths, torch.cat(columns, 1))
        for place, part in zip(places, rows.split([c.shape[1] for c in columns], 1), strict=True):
            found[place] = part.reshape(sum(lengths), *values[place].shape[1:])
    return [found[place] for place in range(len(values))], facts[0][1] if seed else None


class _Rows(torch.autograd.Function):
    """Rows `[N, d]` of all ranks; the gradient of one's own."""

    @staticmethod
    def forward(ctx: Any, group: Group, lengths: list[int], rows: Tensor) -> Tensor:
        rank = distributed.get_rank(group)
        start = sum(lengths[:rank])
        ctx.own = slice(start, start + lengths[rank])
        ctx.factor = sum(lengths) / max(1, lengths[rank])
        return _together(rows, lengths, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor]:
        return None, None, grad[ctx.own] * ctx.factor


def _facts(own: list[int], device: torch.device, group: Group) -> Tensor:
    """Integers of every rank, `[W, k]`."""
    mine = torch.tensor([own], device=device)
    found = [torch.empty_like(mine) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(found, mine, group=group)
    return torch.cat(found)


def _together(values: Tensor, lengths: list[int], group: Group) -> Tensor:
    most = max(lengths)
    padded = values.contiguous()
    if len(values) < most:
        padded = torch.cat([values, values.new_zeros(most - len(values), *values.shape[1:])])
    gathered = [torch.empty_like(padded) for _ in lengths]
    distributed.all_gather(gathered, padded, group=group)
    return torch.cat([rows[:length] for rows, length in zip(gathered, lengths, strict=True)])
