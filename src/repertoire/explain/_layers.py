"""Finding the layer to explain."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from repertoire.backbones import Backbone
from repertoire.errors import ConfigError, UnknownName

__all__ = ["Layer", "choose_layers", "evaluating"]


@dataclass(frozen=True)
class Layer:
    """A module of a model whose output is to be explained.

    Attributes:
        module: the module itself.
        name: what the model calls it.
        to_maps: its output as feature maps `[N, K, h, w]`.
    """

    module: nn.Module
    name: str
    to_maps: Callable[[Tensor], Tensor]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """All modules in evaluation mode, and afterwards each in the mode that it had."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def choose_layers(model: nn.Module, layer: str | nn.Module | None, inputs: Tensor) -> list[Layer]:
    """The layer that was asked for; or, if none was, those to try, the best first.

    Of a backbone that honours the contract these are its last block and the one before it: a transformer that reads
    its answer from a class token has no gradient on the other tokens of its last block. Of any other network it is the
    module that is last to give a map of more than one pixel, which one image is passed through the network to find.

    Raises:
        UnknownName: the model has no module of that name.
        ConfigError: the module is not part of the model, or none of its modules gives feature maps.
    """
    backbone = _backbone(model)
    names = {module: name for name, module in model.named_modules()}
    grids = dict.fromkeys(backbone.blocks, backbone.grid) if backbone is not None else {}

    def found(module: nn.Module) -> Layer:
        return Layer(module, names[module], grids.get(module, _identity))

    if isinstance(layer, str):
        return [found(_named(model, layer))]
    if layer is not None:
        if layer not in names:
            raise ConfigError(f"layer is a {type(layer).__name__} that is not part of the {type(model).__name__}")
        return [found(layer)]
    if backbone is not None:
        last = backbone.stage_ends[-1]
        return [found(block) for block in reversed(backbone.blocks[max(last - 1, 0) : last + 1])]
    return [found(_last_spatial(model, inputs))]


def _identity(x: Tensor) -> Tensor:
    return x


def _backbone(model: nn.Module) -> Backbone | None:
    candidates = (model, getattr(model, "backbone", None))
    return next((candidate for candidate in candidates if isinstance(candidate, Backbone)), None)


def _named(model: nn.Module, name: str) -> nn.Module:
    known = {key: module for key, module in model.named_modules(remove_duplicate=False) if key}
    if name not in known:
        # A deep network has hundreds of modules; the message names those that look most like what was meant.
        raise UnknownName(
            f"layer of the {type(model).__name__}", name, difflib.get_close_matches(name, known, n=12, cutoff=0)
        )
    return known[name]


def _last_spatial(model: nn.Module, inputs: Tensor) -> nn.Module:
    """The module that is last to give one tensor `[N, K, h, w]` of more than one pixel, and that runs once."""
    runs: Counter[nn.Module] = Counter()
    order: list[nn.Module] = []

    def record(module: nn.Module, _: Any, output: Any) -> None:
        runs[module] += 1
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
            order.append(module)

    handles = [module.register_forward_hook(record) for module in model.modules() if module is not model]
    try:
        with torch.no_grad():
            model(inputs[:1])
    finally:
        for handle in handles:
            handle.remove()
    for module in reversed(order):
        if runs[module] == 1:
            return module
    raise ConfigError(
        f"no module of the {type(model).__name__} gives feature maps [N, K, h, w] of more than one pixel; "
        "a network without them cannot be explained by Grad-CAM"
    )
