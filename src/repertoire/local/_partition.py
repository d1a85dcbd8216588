"""Division of a network's units into blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from repertoire.errors import ConfigError, UnknownName
from repertoire.local._units import Chain

__all__ = ["Balance", "check_unshared", "head_apart", "partition", "split_evenly"]

Balance = Literal["memory", "time", "count"]


def partition(
    chain: Chain,
    blocks: int | Literal["all"] = 4,
    *,
    at: Sequence[str] = (),
    balance: Balance = "memory",
) -> list[int]:
    """The last unit of each block, as numbers from 0; the last one is the last unit.

    Args:
        chain: the network.
        blocks: how many blocks; "all" makes every unit one.
        at: names of the units after which to cut, instead of a number of blocks.
        balance: what the blocks should have alike: "memory" (predicted bytes of activations, which is what the peak
            depends on), "time" (predicted time of forward and backward pass), or "count" (of units).

    Raises:
        ConfigError: more blocks than the network has units; or a cut that leaves nothing.
        UnknownName: `at` names a unit that is not there.
    """
    names = [unit.name for unit in chain.units]
    if at:
        for name in at:
            if name not in names:
                raise UnknownName("unit to cut after", name, names)
        ends = sorted({names.index(name) for name in at} | {len(names) - 1})
        if len(ends) < 2:
            raise ConfigError(f"a cut after {at[0]!r} leaves nothing behind it: it is the last unit")
        return ends
    if blocks == "all":
        return list(range(len(names)))
    if blocks < 1:
        raise ConfigError(f"blocks is {blocks}; expected 1 or more, or 'all'")
    if blocks > len(names):
        raise ConfigError(
            f"blocks is {blocks}, and this network can be cut into no more than {len(names)}: {', '.join(names)}"
        )
    if balance == "count" or blocks in (1, len(names)):
        costs: list[float] = [1.0] * len(names)
    else:
        from repertoire.local._costs import costs_of

        costs = costs_of(chain, balance)
    return split_evenly(costs, blocks)


def head_apart(chain: Chain, ends: Sequence[int]) -> list[int]:
    """The same blocks, and after them one of no units: pooling and head, if there is anything in them to train.

    Such a block is written as one that ends where the block before it does.
    """
    return [*ends, ends[-1]] if any(True for _ in chain.tail.parameters()) else list(ends)


def split_evenly(costs: Sequence[float], parts: int) -> list[int]:
    """Ends of `parts` consecutive groups whose largest sum is as small as it can be.

    >>> split_evenly([4, 1, 1, 1, 1], 2)
    [0, 4]
    """
    count = len(costs)
    sums = [0.0]
    for cost in costs:
        sums.append(sums[-1] + cost)
    # best[p][i]: the least largest sum of the first i units in p groups.
    best = [[float("inf")] * (count + 1) for _ in range(parts + 1)]
    cut = [[0] * (count + 1) for _ in range(parts + 1)]
    best[0][0] = 0.0
    for p in range(1, parts + 1):
        for i in range(p, count + 1):
            for j in range(p - 1, i):
                worst = max(best[p - 1][j], sums[i] - sums[j])
                if worst < best[p][i]:
                    best[p][i], cut[p][i] = worst, j
    ends, i = [], count
    for p in range(parts, 0, -1):
        ends.append(i - 1)
        i = cut[p][i]
    return ends[::-1]


def check_unshared(chain: Chain, ends: Sequence[int]) -> None:
    """Refuses a parameter or a module that two blocks would train.

    Raises:
        ConfigError: names it and the two blocks.
    """
    owner: dict[int, tuple[int, str]] = {}
    start = 0
    for index, end in enumerate(ends):
        held: list[nn.Module] = [unit.module for unit in chain.units[start : end + 1]]
        if index == len(ends) - 1:
            held.append(chain.tail)
        for unit in held:
            for name, thing in (*unit.named_parameters(), *unit.named_buffers()):
                first, known = owner.setdefault(id(thing), (index, name))
                if first != index:
                    raise ConfigError(
                        f"blocks {first + 1} and {index + 1} share {known}: two blocks cannot train the same weights. "
                        "Cut elsewhere (at=...), or into fewer blocks"
                    )
        start = end + 1
