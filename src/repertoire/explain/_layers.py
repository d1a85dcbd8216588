"""Finding the layers to explain."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from repertoire.backbones import Backbone
from repertoire.errors import ConfigError, UnknownName
from repertoire.ops import as_maps, fits_image

__all__ = ["Activations", "Layer", "Where", "check_where", "choose_layers"]

#: A module or its name, several of them, or None for the one that is found.
Where = str | nn.Module | Sequence[str | nn.Module] | None


@dataclass(frozen=True)
class Layer:
    """A module of a model whose output is to be explained.

    Attributes:
        module: the module itself.
        name: what the model calls it.
        to_maps: its output as feature maps `[N, K, h, w]`.
        activated: what is to be explained is what an activation makes of the output right after it.
    """

    module: nn.Module
    name: str
    to_maps: Callable[[Tensor], Tensor]
    activated: bool = False


#: All of them are zero at zero: without a map, there is none after them either.
_ACTIVATIONS = {
    function
    for owner in (F, torch, Tensor)
    for name in (
        "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardtanh", "tanh",
    )
    for function in (getattr(owner, name, None), getattr(owner, f"{name}_", None))
    if function is not None
}  # fmt: skip


class Activations(TorchFunctionMode):
    """Sees what activations make of some tensors, whether they are modules or functions, and may replace it.

    Args:
        after: called with the tensor that enters an activation and what comes out of it; gives what to go on with.
    """

    def __init__(self, after: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.after = after

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = args[0] if args else (kwargs or {}).get("input")
        if func in _ACTIVATIONS and isinstance(given, Tensor) and isinstance(result, Tensor):
            return self.after(given, result)
        return result


def check_where(layer: Any) -> Where:
    """A `layer` argument: as it came, or split at its commas, which is how the command line gives several.

    Raises:
        ConfigError: neither modules nor names.
    """
    if isinstance(layer, str) and "," in layer:
        layer = [name.strip() for name in layer.split(",")]
    several = layer if isinstance(layer, list | tuple) else [layer]
    fits = layer is None or (several and all(isinstance(one, str | nn.Module) for one in several))
    if not fits or len({id(one) if isinstance(one, nn.Module) else one for one in several}) < len(several):
        raise ConfigError(f"layer must be a module or its name, or a list of different ones, found {_shown(layer)}")
    return list(layer) if isinstance(layer, tuple) else layer


def _shown(layer: Any) -> str:
    return repr(layer) if isinstance(layer, list | tuple | str) else type(layer).__name__


def choose_layers(model: nn.Module, layer: Where, inputs: Tensor, *, slopes: bool = True) -> list[list[Layer]]:
    """The layers that were asked for; or, if none were, those to try, the best first.

    Of a backbone that honours the contract these are its last block and the one before it: a transformer that reads
    its answer from a class token has no gradient on the other tokens of its last block. Of any other network it is the
    module that is last to give a map of more than one pixel on which the scores depend, which one image is passed
    through the network to find.

    Args:
        model, inputs: as explainers take them.
        layer: what the user said.
        slopes: whether the scores must depend on the map that is found.

    Raises:
        UnknownName: the model has no module of that name.
        ConfigError: the module is not part of the model, or none of its modules gives feature maps.
    """
    backbone = _backbone(model)
    names = {module: name for name, module in model.named_modules()}
    blocks = set(backbone.blocks) if backbone is not None else set()
    size = (int(inputs.shape[2]), int(inputs.shape[3]))

    def found(module: nn.Module) -> Layer:
        if backbone is not None and module in blocks:
            return Layer(module, names[module], backbone.grid)
        return Layer(module, names[module], lambda output: as_maps(output, size))

    def of(one: str | nn.Module) -> Layer:
        if isinstance(one, str):
            return found(_named(model, backbone, one))
        if one not in names:
            raise ConfigError(f"layer is a {type(one).__name__} that is not part of the {type(model).__name__}")
        return found(one)

    if layer is not None:
        return [[of(one) for one in ([layer] if isinstance(layer, str | nn.Module) else layer)]]
    if backbone is not None:
        last = backbone.stage_ends[-1]
        return [[found(block)] for block in reversed(backbone.blocks[max(last - 1, 0) : last + 1])]
    module, activated = _last_spatial(model, inputs, size, slopes)
    return [[replace(found(module), activated=activated)]]


def _backbone(model: nn.Module) -> Backbone | None:
    candidates = (model, getattr(model, "backbone", None))
    return next((candidate for candidate in candidates if isinstance(candidate, Backbone)), None)


def _named(model: nn.Module, backbone: Backbone | None, name: str) -> nn.Module:
    known = {key: module for key, module in model.named_modules(remove_duplicate=False) if key}
    stage = re.fullmatch(r"stage(\d+)", name)
    if name not in known and backbone is not None and stage:
        if 1 <= int(stage[1]) <= len(backbone.stage_ends):
            return backbone.blocks[backbone.stage_ends[int(stage[1]) - 1]]
        raise UnknownName("stage of the backbone", name, [f"stage{i + 1}" for i in range(len(backbone.stage_ends))])
    if name not in known:
        # A deep network has hundreds of modules; the message names those that look most like what was meant.
        raise UnknownName(
            f"layer of the {type(model).__name__}", name, difflib.get_close_matches(name, known, n=12, cutoff=0)
        )
    return known[name]


def _last_spatial(model: nn.Module, inputs: Tensor, size: tuple[int, int], slopes: bool) -> tuple[nn.Module, bool]:
    """The module that is last to give one tensor of maps of more than one pixel, and that runs once; and whether an
    activation follows it at once, which belongs to it: a module of its own, one that is used again, or a function.

    If slopes are needed, all of what the network gives is asked at once whether its output depends on it."""
    runs: Counter[nn.Module] = Counter()
    order: list[tuple[nn.Module, Tensor]] = []
    handed: dict[int, tuple[nn.Module, Tensor]] = {}  # with the tensor, so that no other gets its number
    activated: set[nn.Module] = set()

    def after(given: Tensor, result: Tensor) -> Tensor:
        if id(given) in handed:
            activated.add(handed[id(given)][0])
        return result

    def note(module: nn.Module, _: Any, output: Any) -> Tensor | None:
        runs[module] += 1
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return None
        maps = as_maps(output, size)
        if maps.ndim != 4 or maps.shape[2:].numel() < 2 or not fits_image(maps.shape[2:], size):
            return None
        if slopes and not output.requires_grad:
            output = output.detach().requires_grad_()
        order.append((module, output))
        onward = output.clone() if slopes else output
        handed[id(onward)] = module, onward
        return onward

    handles = [module.register_forward_hook(note) for module in model.modules() if module is not model]
    try:
        with torch.set_grad_enabled(slopes), Activations(after):
            result = model(inputs[:1])
    finally:
        for handle in handles:
            handle.remove()
    found = [(module, output) for module, output in order if runs[module] == 1]
    if order and not found:
        raise ConfigError(
            f"the modules of the {type(model).__name__} that give feature maps run more than once in a forward pass, "
            "as where several views pass through one network; explain a network that passes an image once"
        )
    if not found:
        raise ConfigError(
            f"no module of the {type(model).__name__} gives feature maps [N, K, h, w] of more than one pixel; "
            "a network without them cannot be explained by what a layer gives"
        )
    chosen = _depended_on(found, result, size) if slopes else found[-1][0]
    return chosen, chosen in activated


def _depended_on(found: list[tuple[nn.Module, Tensor]], result: Any, size: tuple[int, int]) -> nn.Module:
    """The last module of whose maps the result depends on more than one pixel; the last of all if there is none, whose
    refusal says why."""
    tensors = list(result.values()) if isinstance(result, dict) else result
    tensors = [t for t in (tensors if isinstance(tensors, list | tuple) else [tensors]) if isinstance(t, Tensor)]
    tensors = [t for t in tensors if t.requires_grad]
    if tensors:
        generator = torch.Generator().manual_seed(0)
        with torch.enable_grad():
            # Random signs: the sum of a softmax, or of what follows a normalisation, depends on nothing.
            total = sum((t.float() * torch.randn(t.shape, generator=generator).to(t.device)).sum() for t in tensors)
            gradients = torch.autograd.grad(total, [output for _, output in found], allow_unused=True)
        for (module, _), gradient in reversed(list(zip(found, gradients, strict=True))):
            if gradient is not None and int((as_maps(gradient, size) != 0).any(1).sum()) > 1:
                return module
    return found[-1][0]
