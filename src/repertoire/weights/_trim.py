"""Which changes are the largest, of more tensors than are held at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from repertoire.weights._state import State, is_averaged
from repertoire.weights._wide import pieces

__all__ = ["kept_from"]

_BUCKETS = 1 << 15
"""Magnitudes in float32 by their exponent and the first seven bits of their mantissa."""


def kept_from(state: State, base: State, density: float) -> float:
    """The smallest absolute change that is kept, where a share of all entries is: the largest ones.

    The tensors are read twice, one at a time. The first time, magnitudes are counted in buckets; the second time, those
    of the bucket in which the smallest lies are sorted.

    Args:
        state: after fine-tuning; what has no mean does not count.
        base: before.
        density: the share, rounded down, and one entry at least.
    """
    if density == 1:
        return 0.0
    counts = torch.zeros(_BUCKETS, dtype=torch.int64)
    for changes in _changes(state, base):
        counts += torch.bincount(_bucket(changes), minlength=_BUCKETS).cpu()
    total = int(counts.sum())
    if total == 0:
        return 0.0
    kept = max(1, int(density * total))
    above = counts.flip(0).cumsum(0).flip(0)  # in this bucket and those of larger magnitudes
    bucket = int((above >= kept).nonzero()[-1])
    if bucket == 0:  # zeros, and what is hardly more
        return 0.0
    found = torch.cat([changes[_bucket(changes) == bucket].cpu() for changes in _changes(state, base)])
    rank = kept - (int(above[bucket]) - len(found))  # from the largest one in the bucket on
    return float(found.kthvalue(len(found) - rank + 1).values)


def _changes(state: State, base: State) -> Iterator[Tensor]:
    """Absolute changes in wide precision, a piece at a time."""
    for name in state:
        tensors = [state[name], base[name]]
        if not is_averaged(tensors[0]):
            continue
        if tensors[0].is_complex():
            tensors = [torch.view_as_real(tensor.detach().resolve_conj()) for tensor in tensors]
        for _, (fine, origin) in pieces(tensors):
            yield fine.sub_(origin).abs_()


def _bucket(changes: Tensor) -> Tensor:
    return changes.float().view(torch.int32) >> 16
