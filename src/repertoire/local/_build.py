"""From a network to its blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from repertoire import registry
from repertoire.errors import ConfigError
from repertoire.local._block import LocalBlock, LocalObjective, MethodObjective
from repertoire.local._overlap import OverlapBlock, overlaps
from repertoire.local._partition import Balance, check_unshared, head_apart, partition
from repertoire.local._units import Chain, chain_of
from repertoire.local.auxiliaries._base import Auxiliary, LocalLoss, Site
from repertoire.methods import Method
from repertoire.ops import evaluating

__all__ = ["AuxiliarySpec", "Blocks", "build_blocks", "chain_outputs", "check_covered", "method_blocks"]

Blocks = int | Literal["all"]

AuxiliarySpec = str | registry.Spec | Callable[[Site], Auxiliary]
"""Names the auxiliary networks, or makes one for a site."""


def build_blocks(
    chain: Chain,
    ends: Sequence[int],
    auxiliary: AuxiliarySpec,
    classes: int,
    loss: LocalLoss,
    last: nn.Module,
    overlap: int = 0,
) -> list[LocalBlock]:
    """The blocks of a chain, each but the last with a fresh auxiliary network on the device of its units.

    Args:
        chain: the network.
        ends: the last unit of each block; see `head_apart` for a last block without units.
        auxiliary: spec of the auxiliary networks, or what makes one for its site.
        classes: number of classes.
        loss: what every block minimises.
        last: objective of the last block.
        overlap: how many units of the next block each loss is taken behind.
    """
    blocks: list[LocalBlock] = []
    start, entered = 0, 0
    ahead = overlaps(ends, overlap)
    for index, end in enumerate(ends):
        units, more = chain.units[start : end + 1], chain.units[end + 1 : end + 1 + ahead[index]]
        objective = last
        if index < len(ends) - 1:
            site = Site(
                index=index,
                count=len(ends),
                unit=end + len(more),
                units=len(chain.units),
                shape=(*units, *more)[-1].shape,
                maps=chain.maps,
                following=chain.units[end + 1 + len(more) :],
                image=chain.image,
                classes=classes,
                own=(*units, *more),
            )
            network: Auxiliary = (
                auxiliary(site) if callable(auxiliary) else registry.build("auxiliaries", auxiliary, site=site)
            )
            objective = LocalObjective(_placed(network, units[-1].module), loss)
        names = [unit.name for unit in units] or ["head"]
        modules = [unit.module for unit in units]
        if entered or more:
            blocks.append(OverlapBlock(modules, names, objective, entered, [unit.module for unit in more]))
        else:
            blocks.append(LocalBlock(modules, names, objective))
        start, entered = end + 1, len(more)
    return blocks


def _placed(network: Auxiliary, module: nn.Module) -> Auxiliary:
    """The network where the module is, and as it lies in memory: where layouts meet, maps are copied."""
    parameters = list(module.parameters())
    network = network.to(device=parameters[0].device, dtype=parameters[0].dtype)
    last = torch.channels_last
    if any(p.dim() == 4 and p.is_contiguous(memory_format=last) and not p.is_contiguous() for p in parameters):
        network = network.to(memory_format=last)  # type: ignore[call-overload]
    return network


def method_blocks(
    method: Method,
    example: Tensor,
    blocks: Blocks,
    auxiliary: str,
    at: Sequence[str],
    balance: Balance,
    *,
    apart: bool = False,
    overlap: int = 0,
) -> list[LocalBlock]:
    """The blocks of a method's network; the last minimises what the method does. `apart`: the head is a block too.

    Raises:
        ConfigError: the network cannot be cut so; the method has no loss for a block, or trains more than its network
            and what follows it.
    """
    loss = method.block_loss
    assert loss is not None, "the rule has checked the method"
    chain = chain_of(method.model, example)
    ends = partition(chain, blocks, at=at, balance=balance)
    if apart:
        ends = head_apart(chain, ends)
    check_unshared(chain, ends)
    classes = chain_outputs(chain, example)
    backbone = method.model.backbone
    own = nn.ModuleList([child for name, child in backbone.named_children() if name != "blocks"])
    found = build_blocks(chain, ends, auxiliary, classes, loss, MethodObjective(method, own), overlap)
    check_covered(method, found)
    return found


def chain_outputs(chain: Chain, example: Tensor) -> int:
    """Number of class scores that a network gives.

    Raises:
        ConfigError: its output is not `[N, K]`.
    """
    tail = chain.tail
    last = chain.units[-1].shape
    with evaluating(tail), torch.no_grad():
        found = tail(torch.zeros(len(example), *last, device=example.device, dtype=example.dtype))
    if found.dim() != 2:
        raise ConfigError(f"the network gives {list(found.shape)}; local learning needs class scores [N, K]")
    return int(found.shape[1])


def check_covered(model: nn.Module, blocks: Sequence[LocalBlock]) -> None:
    """Refuses a network with parameters that no block would train.

    Raises:
        ConfigError: names them.
    """
    held = {id(p) for block in blocks for p in block.parameters()}
    left = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]
    if left:
        raise ConfigError(
            f"no block trains {', '.join(left[:5])}{', ...' if len(left) > 5 else ''}: cut, they are not used"
        )
