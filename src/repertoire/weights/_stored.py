"""Networks that are not simply their tensors: what lies on the disk, and how a network comes of it."""

from __future__ import annotations

import builtins
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from repertoire.errors import CheckpointError, ConfigError, UnknownName, ascii_path
from repertoire.files import write_bytes

__all__ = ["Stored", "form", "forms", "read_stored"]

Form = Callable[..., nn.Module]
T = TypeVar("T", bound=Form)

_FORMS: dict[str, Form] = {}
_KEY = "stored"


def form(name: str) -> Callable[[T], T]:
    """Decorator that enters a form: a function `(model, tensors, **settings) -> network`.

    The model is a network of the original architecture with any weights, and may be changed in place. The function is
    exact and draws nothing, so that a stored network answers the same wherever it is opened, and raises
    `CheckpointError` where the tensors do not fit the model.

    Args:
        name: lower-case, words joined by hyphens; it stands in the file.

    Raises:
        ValueError: another function has that name.

    Example:
        >>> import torch
        >>> from repertoire.weights import Stored, form
        >>> @form("negated")
        ... def negated(model, tensors):
        ...     model.load_state_dict({name: -value for name, value in tensors.items()})
        ...     return model
        >>> layer = torch.nn.Linear(1, 1)
        >>> stored = Stored("negated", {"weight": torch.ones(1, 1), "bias": torch.zeros(1)})
        >>> stored.build(layer)(torch.ones(1, 1)).item()
        -1.0
    """

    def enter(function: T) -> T:
        known = _FORMS.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (function.__module__, function.__qualname__):
            raise ValueError(f"form {name!r} is already {known.__module__}.{known.__qualname__}")
        _FORMS[name] = function
        return function

    return enter


def forms() -> list[str]:
    """The names of all forms that are known, sorted. Those of compressors are known once these are imported."""
    return sorted(_FORMS)


@dataclass(frozen=True)
class Stored:
    """A network as it is stored: tensors, and what makes a network of them.

    Merging gives one where the result is no longer of the architecture of what was merged, and compression always does.

    Attributes:
        form: name of the function that makes a network of it; see `form`.
        tensors: what is written, name to tensor.
        settings: options of the form, such as JSON can hold.
        features: where a merge has changed what the features of a network are: for each merged network, the number
            of its feature that stands at each place of the result, and -1 where none does. Not written.

    Example:
        >>> import torch
        >>> from repertoire.weights import Stored
        >>> wide = Stored("shaped", {"weight": torch.ones(2, 5), "bias": torch.zeros(2)})
        >>> wide.build(torch.nn.Linear(3, 2))(torch.ones(1, 5))
        tensor([[5., 5.]], grad_fn=<AddmmBackward0>)
        >>> wide.bytes
        248
    """

    form: str
    tensors: Mapping[str, Tensor]
    settings: Mapping[str, Any] = field(default_factory=dict)
    features: Sequence[Sequence[int]] | None = None

    def build(self, model: nn.Module) -> nn.Module:
        """The network.

        Args:
            model: one of the original architecture, with any weights; it may be changed, and may be what is given back.

        Raises:
            UnknownName: no form of that name is known, as where a plugin that brings it was not imported.
            CheckpointError: the tensors do not fit the model.
        """
        if self.form not in _FORMS:
            raise UnknownName("form of a stored network", self.form, forms())
        return _FORMS[self.form](model, self.tensors, **self.settings)

    @property
    def bytes(self) -> int:
        """Size of the file that `save` writes."""
        return len(self._file())

    def _file(self) -> builtins.bytes:
        told = json.dumps({"form": self.form, "settings": dict(self.settings)}, sort_keys=True)
        # Copies, because safetensors refuses tensors that share memory.
        held = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in self.tensors.items()}
        return serialise(held, {_KEY: told})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a safetensors file, atomically.

        Raises:
            RunError: the disk is full; whatever stood at `path` still does.
        """
        write_bytes(path, self._file())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Stored:
        """Reads what `save` wrote.

        Raises:
            ConfigError: there is no such file.
            CheckpointError: it is no file of a stored network, or was cut short.
        """
        shown = ascii_path(str(path))
        if not os.path.isfile(path):
            raise ConfigError(f"there is no file {shown}")
        try:
            with safe_open(str(path), framework="pt") as file:
                told = (file.metadata() or {}).get(_KEY)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            found = None if told is None else json.loads(told)
        except (SafetensorError, OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{shown} cannot be read as a stored network: {error}") from None
        if not isinstance(found, dict) or not isinstance(found.get("form"), str):
            raise CheckpointError(f"{shown} holds no stored network, or was not written by Repertoire")
        return cls(found["form"], tensors, found.get("settings") or {})


def read_stored(tensors: Mapping[str, Tensor], told: Mapping[str, Any] | None) -> Stored:
    """The network of a checkpoint: of the tensors named "model.NAME" as they are, or of those named "stored.NAME".

    Args:
        tensors: all tensors of the checkpoint.
        told: what it says of the form, `{"form": ..., "settings": ...}`; None where it says nothing.
    """
    prefix = "model." if told is None else "stored."
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return Stored("dense", own) if told is None else Stored(str(told["form"]), own, told.get("settings") or {})


@form("dense")
def dense(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The tensors of a network as they are."""
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise CheckpointError(f"the tensors do not fit the network: {' '.join(str(error).split())}") from None
    return model


@form("shaped")
def shaped(model: nn.Module, tensors: Mapping[str, Tensor], out_features: int | None = None) -> nn.Module:
    """The tensors of a network whose layers have another width: each layer takes the shapes of its own.

    Linear layers, convolutions (of one group, or depthwise) and batch normalisation do; any other layer must have the
    shapes that it has.

    Args:
        model: of the original architecture; changed in place.
        tensors: its state, where shapes may differ.
        out_features: width of the features, where a classifier has another than before.
    """
    for name, module in model.named_modules():
        changed = {
            own: tensors[key]
            for own, value in [*module._parameters.items(), *module._buffers.items()]
            if value is not None and (key := f"{name}.{own}" if name else own) in tensors
            and tensors[key].shape != value.shape
        }  # fmt: skip
        if changed:
            _reshape(name, module, changed)
    if out_features is not None:
        for part, width in (("backbone", "out_features"), ("head", "in_features")):
            if hasattr(getattr(model, part, None), width):
                setattr(getattr(model, part), width, out_features)
    return dense(model, tensors)


def _reshape(name: str, module: nn.Module, changed: Mapping[str, Tensor]) -> None:
    """Gives a layer room for tensors of other shapes, which are not loaded yet."""
    weight = changed.get("weight")
    if isinstance(module, nn.Linear):
        if weight is not None:
            module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.modules.conv._ConvNd) and not module.transposed:
        depthwise = module.groups == module.in_channels == module.out_channels
        if not depthwise and module.groups != 1:
            raise CheckpointError(f"{name} is a convolution of {module.groups} groups, which keeps its width")
        if weight is not None:
            module.out_channels = weight.shape[0]
            module.in_channels = weight.shape[0] if depthwise else weight.shape[1]
            module.groups = weight.shape[0] if depthwise else 1
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        module.num_features = next(iter(changed.values())).shape[0]
    else:
        found = ", ".join(f"{own} {list(value.shape)}" for own, value in changed.items())
        raise CheckpointError(f"{name or 'the network'}, {type(module).__name__}, cannot take the shapes {found}")
    for own, value in changed.items():
        old = getattr(module, own)
        fresh = value.new_zeros(value.shape, dtype=old.dtype, device=old.device)
        if isinstance(old, nn.Parameter):
            setattr(module, own, nn.Parameter(fresh, requires_grad=old.requires_grad))
        else:
            setattr(module, own, fresh)
