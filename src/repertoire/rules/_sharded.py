"""Weights divided among processes (FSDP): each has a share of every tensor, and the whole of a block while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn

from repertoire.errors import ConfigError, option

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch.distributed.device_mesh import DeviceMesh

    from repertoire.methods import Method

__all__ = ["divided", "is_sharded", "own_share", "shard", "share_buffers", "whole", "whole_around"]


def is_sharded(fabric: Fabric) -> bool:
    """True if each process holds a share of the weights, and not all of them."""
    from lightning_fabric.strategies import ModelParallelStrategy

    return isinstance(fabric.strategy, ModelParallelStrategy)


def shard(method: Method, mesh: DeviceMesh) -> Method:
    """Divides the weights of a method among the processes of a mesh, in place: block by block, the rest as one.

    Args:
        method: on its device, the same on every process.
        mesh: of Fabric's strategy, whose dimension "data_parallel" the weights are divided over.

    Returns:
        The method, whose `forward` brings the weights of each block together while it is needed.

    Raises:
        ConfigError: the method has weights that no gradient reaches, and that follow the network.
    """
    from torch.distributed.fsdp import fully_shard

    following = [name for name, parameter in method.named_parameters() if not parameter.requires_grad]
    if following:
        raise ConfigError(
            f"{option('strategy', 'fsdp')} divides what is learned by gradients, and {type(method).__name__} has "
            f"weights that are not ({', '.join(following[:3])}{', ...' if len(following) > 3 else ''}), such as those "
            f"of a teacher that follows the network: use {option('strategy', 'ddp')}"
        )
    for parameter in method.parameters():
        # FSDP takes no other layout; channels last comes back with the images.
        parameter.data = parameter.data.contiguous()
    along = mesh["data_parallel"]
    for block in method.model.backbone.blocks:
        if any(True for _ in block.parameters()):
            fully_shard(block, mesh=along)
    fully_shard(method, mesh=along)
    return method


@contextmanager
def whole_around(method: nn.Module) -> Iterator[None]:
    """Brings together what is in no block, for code that calls parts of the method; every process enters it."""
    method.unshard()  # type: ignore[operator]
    try:
        yield
    finally:
        method.reshard()  # type: ignore[operator]


def whole(value: Any, *, keep: bool) -> Any:
    """The same nested structure with whole tensors on the CPU; every process calls it, with the same structure.

    Args:
        value: dictionaries and lists of tensors and plain values.
        keep: whether this process wants them; it gets None for what is divided otherwise.
    """
    if isinstance(value, Tensor):
        if not _is_share(value):
            return value.detach()
        full = value.detach().full_tensor()  # type: ignore[attr-defined]
        return full.cpu() if keep else None
    if isinstance(value, dict):
        return {name: whole(item, keep=keep) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole(item, keep=keep) for item in value)
    return value


def divided(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor divided as another is; as it is, where that is not divided or it is so already."""
    if not _is_share(like) or _is_share(value):
        return value
    from torch.distributed.tensor import distribute_tensor

    # Every process has all of it, and takes its share without a message.
    return distribute_tensor(
        value.to(like.device),
        like.device_mesh,  # type: ignore[attr-defined]
        like.placements,  # type: ignore[attr-defined]
        src_data_rank=None,
    )


def own_share(value: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return value.to_local() if _is_share(value) else value  # type: ignore[attr-defined]


def share_buffers(method: nn.Module) -> None:
    """Gives every process the buffers of the first, as data parallelism without sharding does before each step."""
    for buffer in method.buffers():
        distributed.broadcast(buffer, 0)


def _is_share(value: Tensor) -> bool:
    if type(value) in (Tensor, nn.Parameter) or not torch.distributed.is_available():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)
