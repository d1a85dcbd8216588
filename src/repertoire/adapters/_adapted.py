"""Attaching an adapter to a network, and merging it into its weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from repertoire import registry
from repertoire.adapters._base import Adapter, Change
from repertoire.errors import CheckpointError, ConfigError

__all__ = ["Adapted", "attach", "is_adapted", "merge", "merged_state", "plain_state"]

M = TypeVar("M", bound=nn.Module)
_MARK = "parametrizations.weight."
"""What stands in the names of an adapted layer's tensors."""


class Adapted:
    """A network with an adapter: its own weights are frozen, those of the adapter learn.

    Attributes:
        model: the network. It was changed in place, and is used as before.
        layers: names of the adapted layers.
    """

    def __init__(self, model: nn.Module, layers: tuple[str, ...]) -> None:
        self.model = model
        self.layers = layers

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the network."""
        return self.model(*args, **kwargs)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The adapter's parameters, with the names that they have in the network."""
        for prefix, change in _changes(self.model):
            yield from ((f"{prefix}.{name}", parameter) for name, parameter in change.named_parameters())

    def parameters(self) -> Iterator[nn.Parameter]:
        """The adapter's parameters."""
        return (parameter for _, parameter in self.named_parameters())

    @property
    def count(self) -> int:
        """Number of parameters that the adapter adds."""
        return sum(parameter.numel() for parameter in self.parameters())

    def state_dict(self) -> dict[str, Tensor]:
        """The adapter's state, without the network's."""
        return {
            f"{prefix}.{name}": value.detach()
            for prefix, change in _changes(self.model)
            for name, value in change.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state_dict` gave.

        Raises:
            CheckpointError: it is of another adapter, or of other layers.
        """
        own = self.state_dict()
        if wrong := sorted(own.keys() ^ state.keys()) or [n for n in own if own[n].shape != state[n].shape]:
            raise CheckpointError(
                f"this state is not of the adapter on these {len(self.layers)} layers; it differs in "
                f"{', '.join(wrong[:3])}{', ...' if len(wrong) > 3 else ''}. Attach the same adapter first"
            )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(state[name])

    def merged(self) -> nn.Module:
        """A copy of the network with the adapter in its weights: a plain model, of the same architecture as before."""
        return merge(copy.deepcopy(self.model))


def attach(model: nn.Module, spec: str | Adapter) -> Adapted:
    """Freezes a network and attaches an adapter to its linear layers and convolutions.

    The network is changed in place. Its outputs stay what they are until the adapter has learned something.

    Args:
        model: any module.
        spec: of a registered adapter, such as "lora:rank=4", or an adapter.

    Layers whose weight is computed from something else already (weight normalisation, say) are left as they are.

    Raises:
        ConfigError: the network has an adapter already, or no layer that it wants.
        UnknownName: there is no such adapter.

    Example:
        >>> import torch
        >>> from repertoire.adapters import attach
        >>> net = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 16))
        >>> adapted = attach(net, "lora:rank=1")
        >>> [name for name, _ in adapted.named_parameters()][0], sum(p.requires_grad for p in net.parameters())
        ('0.parametrizations.weight.0.a', 4)
        >>> len(adapted.merged().state_dict())
        4
    """
    adapter: Adapter = registry.build("adapters", spec) if isinstance(spec, str) else spec
    if is_adapted(model):
        raise ConfigError("this network has an adapter already: merge it first")
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and not parametrize.is_parametrized(module)
        and adapter.wants(module)
    }
    if not found:
        raise ConfigError(
            f"adapter {spec if isinstance(spec, str) else type(spec).__name__!r} finds no layer to adapt in "
            f"{type(model).__name__}: none of its kind is large enough. Use a smaller rank, or other layers"
        )
    model.requires_grad_(False)
    for layer in found.values():
        parametrize.register_parametrization(layer, "weight", adapter.change(layer.weight))
    return Adapted(model, tuple(found))


def is_adapted(model: nn.Module) -> bool:
    """True if an adapter is attached somewhere in a network."""
    return any(isinstance(module, Change) for module in model.modules())


def merge(model: M) -> M:
    """Writes the adapters in a network into its weights, in place, and removes them; gives the network back."""
    for _, layer in list(_layers(model)):
        weight = nn.Parameter(layer.weight.detach(), requires_grad=False)
        # By hand: torch's removal changes the class, which copies of the layer share.
        del layer.parametrizations
        layer.__class__ = type(layer).__bases__[0]
        layer.weight = weight
    return model


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a network as it would be with its adapters merged; the network stays as it is."""
    state = model.state_dict()
    for name, layer in _layers(model):
        prefix = f"{name}." if name else ""
        for own in [key for key in state if key.startswith(f"{prefix}{_MARK}")]:
            del state[own]
        state[f"{prefix}weight"] = layer.weight.detach()
    return state


@torch.no_grad()
def plain_state(state: Mapping[str, Tensor], spec: str | Adapter | None) -> dict[str, Tensor]:
    """The state of a plain network, of the state of one with an adapter; no network is needed, and none is built.

    Args:
        state: as `state_dict` of the adapted network gave it; a plain one stays what it is.
        spec: of the adapter, or the adapter.

    Raises:
        CheckpointError: the state is of another adapter.
    """
    found = {name: value for name, value in state.items() if _MARK not in name}
    if len(found) < len(state):
        adapter: Adapter = spec if isinstance(spec, Adapter) else registry.build("adapters", spec or "")
        for name in (name for name in state if name.endswith(f"{_MARK}original")):
            prefix = name.removesuffix(f"{_MARK}original")
            own = f"{prefix}{_MARK}0."
            change = adapter.change(state[name])
            try:
                change.load_state_dict({n.removeprefix(own): v for n, v in state.items() if n.startswith(own)})
            except RuntimeError as error:
                reason = " ".join(str(error).split())
                named = type(spec).__name__ if isinstance(spec, Adapter) else spec
                raise CheckpointError(f"the weights are not of adapter {named}: {reason}") from None
            found[f"{prefix}weight"] = change(state[name])
    return found


def _layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The adapted layers by name."""
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module) and any(isinstance(m, Change) for m in module.modules()):
            yield name, module


def _changes(model: nn.Module) -> Iterator[tuple[str, Change]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, Change))
