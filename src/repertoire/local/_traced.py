"""Cutting a network that somebody else wrote."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from repertoire.backbones import Uncuttable, cut, module_names
from repertoire.errors import ConfigError
from repertoire.ops import evaluating

__all__ = ["traced_units"]

#: Largest difference between the composition of the units and the network, relative to the largest output.
TOLERANCE = 1e-4

#: Functions that work otherwise in training: traced, they would stay in one mode for good.
_TWO_FACED = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, F.batch_norm}


def traced_units(model: nn.Module, example: Tensor) -> list[tuple[str, nn.Module]]:
    """The finest units whose composition is `model(x)`, each named after the last of the network's modules in it.

    The forward pass is traced in eval mode with the example, and cut wherever exactly one tensor is still needed. The
    units share the network's modules, and follow its `train()` and `eval()`.

    Args:
        model: takes one tensor, and gives one.
        example: what it takes.

    Raises:
        ConfigError: the forward pass cannot be traced, has no place to cut, works otherwise in training outside of its
            modules, or is not what its parts make of it.
    """
    kind = type(model).__name__
    try:
        with evaluating(model), torch.no_grad():
            # Traced with another batch size than it is checked with: one that got baked in does not pass.
            images = torch.cat([example, example])[:3]
            blocks = cut(model, images[:2], "forward")
            _check_modes(kind, blocks)
            found = images
            for block in blocks:
                found = block(found)
            expected = model(images)
    except Uncuttable as error:
        raise ConfigError(f"{kind} cannot be cut into blocks: {error}") from error
    scale = max(1.0, float(expected.abs().max()))
    if found.shape != expected.shape or not float((found - expected).abs().max()) <= TOLERANCE * scale:
        raise ConfigError(f"{kind} cannot be cut into blocks: cut, it computes something else")
    return [(_name(block), block) for block in blocks]


def _name(block: fx.GraphModule) -> str:
    """The last module with weights that a unit calls; its matrices count before its norms."""
    names = module_names(block)
    working = [name for name in names if any(p.dim() > 1 for p in block.get_submodule(name).parameters())]
    return (working or names or ["input"])[-1]


def _check_modes(kind: str, blocks: list[fx.GraphModule]) -> None:
    for block in blocks:
        for node in block.graph.nodes:
            if node.op == "call_function" and node.target in _TWO_FACED:
                share = node.kwargs.get("p", node.args[1] if len(node.args) > 1 else 0.5)
                if node.target is F.batch_norm or share != 0:
                    raise ConfigError(
                        f"{kind} cannot be cut into blocks: it calls {node.target.__name__} outside of a module, which "
                        "a cut network would no longer switch between training and evaluation. Use the module instead "
                        "(nn.Dropout, nn.BatchNorm2d)"
                    )
