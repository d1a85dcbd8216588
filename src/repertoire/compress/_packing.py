"""Whole numbers of few bits, one after the other in bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.errors import CheckpointError

__all__ = ["pack", "unpack"]


def pack(numbers: Tensor, bits: int) -> Tensor:
    """Whole numbers below 2 to the power of `bits` as bytes, the lowest bit first; the last byte is filled with zeros.

    Args:
        numbers: integers of any shape, read in its order.
        bits: 1 to 16 for each.

    Returns:
        uint8 `[ceil(count * bits / 8)]`.

    Example:
        >>> pack(torch.tensor([1, 2, 3]), 2)
        tensor([57], dtype=torch.uint8)
    """
    places = torch.arange(bits, device=numbers.device)
    stream = (numbers.flatten().long()[:, None] >> places & 1).flatten()
    stream = torch.nn.functional.pad(stream, (0, -len(stream) % 8))
    return (stream.view(-1, 8) << torch.arange(8, device=numbers.device)).sum(1).to(torch.uint8)


def unpack(stored: Tensor, bits: int, count: int) -> Tensor:
    """The first `count` numbers, int64.

    Raises:
        CheckpointError: there are not as many bytes as they take.

    Example:
        >>> unpack(torch.tensor([57], dtype=torch.uint8), 2, 3)
        tensor([1, 2, 3])
    """
    if stored.dtype != torch.uint8 or stored.ndim != 1 or len(stored) != -(-count * bits // 8):
        raise CheckpointError(
            f"{count} numbers of {bits} bits take {-(-count * bits // 8)} bytes; found {list(stored.shape)} of "
            f"{stored.dtype}"
        )
    stream = (stored.long()[:, None] >> torch.arange(8, device=stored.device) & 1).flatten()[: count * bits]
    return (stream.view(count, bits) << torch.arange(bits, device=stored.device)).sum(1)
