"""Modules of the user's own as components: a name for each, for as long as the process lives."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from repertoire import registry
from repertoire.backbones import Backbone
from repertoire.errors import ConfigError, ShapeError, option
from repertoire.losses import LogitsLoss, Loss

__all__ = ["give", "given_names", "is_given"]

_PREFIX = "given-"
"""How the names of modules begin that were given, and not registered."""


def give(kind: str, module: Any, name: str | None = None) -> str:
    """Makes a module a component, and gives the name that a configuration knows it by.

    Every network or loss that is built of it is a copy, with the weights that it has now.

    Args:
        kind: "backbones" or "losses".
        module: a network, images to features `[N, d]` or to maps `[N, C, h, w]`, or a `Backbone`; a loss of logits
            and targets, as those of torch are, or a `Loss` of any contract.
        name: under which a run that was trained with it knows it.

    Raises:
        ConfigError: it is no such thing.
    """
    if kind == "losses" and not isinstance(module, Loss) and callable(module):
        factory: Callable[..., Any] = _loss_of(module)
    elif kind == "losses" and isinstance(module, Loss):
        factory = _copy_of(module)
    elif kind == "backbones" and isinstance(module, nn.Module):
        factory = _backbone_of(module)
    else:
        raise ConfigError(f"{option(_OPTION[kind])} is a {type(module).__name__}; expected {_EXPECTED[kind]}")
    name = name or _PREFIX + _kebab(getattr(module, "__name__", None) or type(module).__name__)
    registry.register(kind, name)(factory)
    return name


_OPTION = {"backbones": "backbone", "losses": "loss"}
_EXPECTED = {"backbones": "a name or a torch.nn.Module", "losses": "a name, a loss or a function of logits and targets"}


def is_given(spec: str) -> bool:
    """True if a spec names a module that was given, and that the process may not have any more."""
    return spec.startswith(_PREFIX)


def given_names(backbone: str, loss: str) -> dict[str, str]:
    """Components of a run that were given, of its two, by the names that it knows them by."""
    return {option: spec for option, spec in (("backbone", backbone), ("loss", loss)) if is_given(spec)}


def _kebab(name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
    return re.sub(r"[^a-z0-9]+", "-", words).strip("-") or "module"


def _backbone_of(module: nn.Module) -> Callable[..., Backbone]:
    trained = isinstance(module, Backbone) and module.preset is not None

    def given(in_channels: int, image_size: int, pretrained: bool = trained) -> Backbone:
        made = copy.deepcopy(module)
        if not isinstance(made, Backbone):
            return _Whole(made, in_channels, image_size)
        if made.in_channels != in_channels:
            raise ConfigError(f"the network takes {made.in_channels} channels, and the data has {in_channels}")
        return made

    return given


class _Whole(Backbone):
    """A network of one block, which nobody looks into."""

    def __init__(self, module: nn.Module, in_channels: int, image_size: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([module])
        self.stage_ends = [0]
        self.in_channels = in_channels
        shape = (2, in_channels, image_size, image_size) if image_size > 1 else (2, in_channels)
        first = next(iter(module.parameters()), torch.zeros(()))
        training = module.training
        try:
            with torch.no_grad():
                found = self.eval()(torch.zeros(shape, device=first.device))
        except (RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{type(module).__name__} does not take inputs {list(shape)}: {reason}") from None
        module.train(training)
        self.out_features = int(found.shape[1])

    def pool(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return x
        if x.ndim == 3:
            return x.mean(1)
        if x.ndim == 4:
            return x.mean((2, 3))
        raise ShapeError(
            f"the network gives {list(x.shape)}; expected features [N, d], maps [N, C, h, w] or tokens [N, T, d]"
        )

    def grid(self, x: Tensor) -> Tensor:
        return x[:, :, None, None] if x.ndim == 2 else x


def _loss_of(module: Callable[[Tensor, Tensor], Tensor]) -> type[LogitsLoss]:
    class Given(LogitsLoss):
        targets = ("classes", "labels", "number")

        def __init__(self) -> None:
            super().__init__()
            self.inner = copy.deepcopy(module)

        def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
            return self.inner(logits, targets)

    return Given


def _copy_of(loss: Loss) -> type[Loss]:
    class Given(type(loss)):  # type: ignore[misc]
        def __init__(self) -> None:
            # With what the loss has kept and learned; nothing is left to be made.
            self.__dict__.update(copy.deepcopy(loss).__dict__)

    return Given
