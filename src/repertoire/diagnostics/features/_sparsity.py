"""Sparsity of activations: the share of a network's units that are active at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from repertoire.errors import ConfigError
from repertoire.ops import evaluating, handing_copies

__all__ = ["LayerSparsity", "activation_sparsity"]

_ACTIVATIONS: dict[Any, str] = {
    F.relu: "relu", F.relu_: "relu", torch.relu: "relu", torch.relu_: "relu", Tensor.relu: "relu",
    Tensor.relu_: "relu", F.relu6: "relu6", F.gelu: "gelu", F.silu: "silu",
}  # fmt: skip


@dataclass(frozen=True)
class LayerSparsity:
    """Share of the units of one activation that are active.

    Attributes:
        name: of the module that applies it, with a number where it does so more than once.
        kind: "relu", "relu6", "gelu" or "silu".
        active: share of the positive outputs, in [0, 1], over all samples, units and positions.
        units: width: channels of maps, the last dimension of tokens and vectors.
        dead: share of the units that are positive for no sample anywhere.
    """

    name: str
    kind: str
    active: float
    units: int
    dead: float


class _Watch(TorchFunctionMode):
    """Counts positive outputs of activation functions, wherever they are called from."""

    def __init__(self) -> None:
        super().__init__()
        self.place: list[str] = []
        self.calls: dict[str, int] = {}
        self.kinds: dict[str, str] = {}
        self.positive: dict[str, Tensor] = {}
        self.total: dict[str, int] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        kind = _ACTIVATIONS.get(function)
        if kind is not None and isinstance(result, Tensor) and result.ndim >= 2:
            self._count(kind, result)
        return result

    def _count(self, kind: str, result: Tensor) -> None:
        base = self.place[-1] if self.place else "model"
        number = self.calls[base] = self.calls.get(base, 0) + 1
        name = base if number == 1 else f"{base}#{number}"
        unit = 1 if result.ndim == 4 else result.ndim - 1
        counts = (result > 0).sum([k for k in range(result.ndim) if k != unit])
        self.kinds[name] = kind
        self.positive[name] = self.positive[name] + counts if name in self.positive else counts
        self.total[name] = self.total.get(name, 0) + result.numel()


@torch.no_grad()
def activation_sparsity(model: nn.Module, batches: Iterable[Tensor] | Tensor) -> list[LayerSparsity]:
    r"""The share of active units behind each ReLU, GELU or SiLU of a network, and of the units that are never active.

    Li et al., *The Lazy Neuron Phenomenon: On Emergence of Activation Sparsity in Transformers* (2022): the entries
    after the activation of each block that are not zero,

    .. math:: \frac{1}{N u} \sum_{i=1}^{N} \big|\{ j : a_j(x_i) > 0 \}\big|,

    averaged over positions where there are any. A unit of a GELU or SiLU, which is hardly ever zero, counts as active
    where it is positive. Calls of functions are seen as well as modules. The model is used in evaluation mode and left
    in the mode it was in.

    Args:
        model: images, or whatever the batches hold, to anything.
        batches: inputs, a tensor or several; they are passed through one by one.

    Returns:
        One row for each activation, in the order of the first call; none if the model has none of these.

    Raises:
        ConfigError: no batch.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.diagnostics import activation_sparsity
        >>> layer = nn.Linear(1, 2, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[1.0], [0.0]]))
        >>> activation_sparsity(nn.Sequential(layer, nn.ReLU()), torch.tensor([[1.0], [-1.0]]))
        [LayerSparsity(name='1', kind='relu', active=0.25, units=2, dead=0.5)]
    """
    watch = _Watch()
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(_entering(watch, name or "model")))
        handles.append(module.register_forward_hook(_leaving(watch), always_call=True))
    seen = 0
    try:
        with evaluating(model), handing_copies(model):
            for batch in [batches] if isinstance(batches, Tensor) else batches:
                seen += 1
                watch.calls.clear()
                with watch:
                    model(batch)
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise ConfigError("batches must hold at least one batch of inputs, found none")
    return [
        LayerSparsity(
            name,
            kind,
            int(watch.positive[name].sum()) / max(1, watch.total[name]),
            len(watch.positive[name]),
            float((watch.positive[name] == 0).float().mean()),
        )
        for name, kind in watch.kinds.items()
    ]


def _entering(watch: _Watch, name: str) -> Callable[..., None]:
    def enter(*_: object) -> None:
        watch.place.append(name)

    return enter


def _leaving(watch: _Watch) -> Callable[..., None]:
    def leave(*_: object) -> None:
        watch.place.pop()

    return leave
