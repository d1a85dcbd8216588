"""A network as an ordered list of units, between each of which and the next exactly one tensor passes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repertoire.backbones import Backbone
from repertoire.errors import ConfigError
from repertoire.methods import Classifier
from repertoire.ops import as_maps, evaluating

__all__ = ["Chain", "Unit", "chain_of"]


@dataclass(frozen=True)
class Unit:
    """One link of a chain: the smallest thing that a block can consist of. It has parameters.

    Attributes:
        name: where the unit lies in the network, such as `blocks.3` or `layer1.0`.
        module: called on the output of the unit before.
        shape: of its output, without the batch.
        entering: shape of its input, without the batch.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    entering: tuple[int, ...]


@dataclass(frozen=True)
class Chain:
    """A network cut as finely as it can be: its forward pass is that of the units in order, then of the tail.

    Attributes:
        units: the units, each with parameters.
        tail: what follows the last unit (pooling and head); it always belongs to the last block.
        maps: the output of any unit as feature maps `[N, C, h, w]`, or as it is where it has no grid.
        image: shape of the network's input, without the batch.
    """

    units: tuple[Unit, ...]
    tail: nn.Module
    maps: Callable[[Tensor], Tensor]
    image: tuple[int, ...]


def chain_of(model: nn.Module, example: Tensor) -> Chain:
    """The units of a network, as fine as possible.

    Backbones and classifiers of Repertoire say themselves what their blocks are, and an `nn.Sequential` is its
    children. Any other module is traced, and cut wherever exactly one tensor is still needed.

    Args:
        model: the network. Its modules are shared with the units.
        example: an input that it takes; only its shape matters, and no weight or running statistic changes.

    Raises:
        ConfigError: the network cannot be cut; the message says where and why.
    """
    size = (int(example.shape[-2]), int(example.shape[-1])) if example.dim() == 4 else None
    maps: Callable[[Tensor], Tensor] = functools.partial(maps_of, size=size)
    tail: nn.Module
    if isinstance(model, Classifier | Backbone):
        backbone = model.backbone if isinstance(model, Classifier) else model
        named = [(f"blocks.{i}", block) for i, block in enumerate(backbone.blocks)]
        if isinstance(model, Classifier):
            named[0] = (named[0][0], nn.Sequential(model.normalize, named[0][1]))
            tail = _Tail(backbone, model.head)
        else:
            tail = _Tail(backbone, None)
        maps = backbone.grid
    elif isinstance(model, nn.Sequential) and type(model).forward is nn.Sequential.forward:
        named, tail = list(_flat(model)), nn.Identity()
    else:
        from repertoire.local._traced import traced_units

        named, tail = traced_units(model, example), nn.Identity()
    merged = _with_parameters(named)
    if not merged:
        raise ConfigError(f"{type(model).__name__} has no parameters: there is nothing to train")
    return Chain(tuple(_shaped(merged, example)), tail, maps, tuple(example.shape[1:]))


def maps_of(x: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Gives activations of images of a size as maps `[N, C, h, w]`, as :func:`repertoire.ops.as_maps` does; tokens that
    do not fill an image become a column, and vectors `[N, C]` stay as they are."""
    found = x if size is None else as_maps(x, size)
    return found.transpose(1, 2)[..., None] if found.dim() == 3 else found


class _Tail(nn.Module):
    """Pooling, then the head. Of the backbone only what pooling may need is registered, and not its blocks."""

    def __init__(self, backbone: Backbone, head: nn.Module | None) -> None:
        super().__init__()
        self._backbone = (backbone,)  # in a tuple, so that its blocks are not taken for modules of the tail
        self.own = nn.ModuleList([child for name, child in backbone.named_children() if name != "blocks"])
        self.head = head

    def pool(self, x: Tensor) -> Tensor:
        return self._backbone[0].pool(x)

    def forward(self, x: Tensor) -> Tensor:
        features = self.pool(x)
        return features if self.head is None else self.head(features)


def _flat(model: nn.Sequential, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in model._modules.items():  # named_children would leave out a module's second use
        assert child is not None
        if isinstance(child, nn.Sequential) and type(child).forward is nn.Sequential.forward:
            yield from _flat(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _with_parameters(named: list[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """Joins what has no parameters to the unit before it, or to the first one that has some."""
    joined: list[tuple[str, list[nn.Module]]] = []
    waiting: list[nn.Module] = []
    for name, module in named:
        if any(True for _ in module.parameters()):
            joined.append((name, [*waiting, module]))
            waiting = []
        elif joined:
            joined[-1][1].append(module)
        else:
            waiting.append(module)
    return [(name, modules[0] if len(modules) == 1 else nn.Sequential(*modules)) for name, modules in joined]


def _shaped(named: list[tuple[str, nn.Module]], example: Tensor) -> Iterator[Unit]:
    """Runs the units on the example in eval mode, which changes nothing, and gives each its shapes."""
    x = example
    with evaluating(*(module for _, module in named)), torch.no_grad():
        for name, module in named:
            entering = tuple(x.shape[1:])
            try:
                x = module(x)
            except Exception as error:
                reason = str(error).strip().split("\n", 1)[0]
                raise ConfigError(f"the network cannot take {list(example.shape)}: {name} fails ({reason})") from None
            if not isinstance(x, Tensor):
                raise ConfigError(
                    f"the network cannot be cut after {name}: it gives a {type(x).__name__}, not one tensor"
                )
            yield Unit(name, module, tuple(x.shape[1:]), entering)
