"""Which weights of a network are compressed, and how a state is put together again from what is stored of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from repertoire.diagnostics import prunable_weights
from repertoire.errors import CheckpointError, ConfigError
from repertoire.weights import Stored

__all__ = ["decoded", "inner_weights", "part_of", "plain"]


def inner_weights(model: nn.Module, ends: bool) -> dict[str, Tensor]:
    """The weights to compress: of linear layers and convolutions, with or without the first and the last.

    Raises:
        ConfigError: there are none.
    """
    found = {name: weight.detach() for name, weight in prunable_weights(model).items()}
    if not ends:
        found = {name: found[name] for name in list(found)[1:-1]}
    if not found:
        between = "" if ends else " between the first and the last; compress these with ends=true"
        raise ConfigError(f"{type(model).__name__} has no linear layer and no convolution{between}")
    return found


@torch.no_grad()
def plain(conv: nn.Conv2d) -> bool:
    """Whether a convolution gives what its weights and its padding say, and does not pad in a way of its own, say."""
    if type(conv).forward is nn.Conv2d.forward:
        return True
    height, width = (d * (k - 1) + 4 for k, d in zip(conv.kernel_size, conv.dilation, strict=True))
    x = torch.linspace(-1, 1, conv.in_channels * height * (width + 1)).view(1, -1, height, width + 1).to(conv.weight)
    expected, found = conv._conv_forward(x, conv.weight, conv.bias), conv(x)
    return expected.shape == found.shape and torch.allclose(expected, found, rtol=1e-4, atol=1e-5)


def part_of(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """A stored tensor.

    Raises:
        CheckpointError: it is not there.
    """
    if name not in tensors:
        raise CheckpointError(f"{name} is missing in what is stored of the network")
    return tensors[name]


def decoded(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    names: Iterable[str],
    parts: Iterable[str],
    decode: Callable[[str, torch.Size], Tensor],
) -> nn.Module:
    """The network whose named weights are decoded, and whose other tensors are stored as they are.

    Args:
        model: of the original architecture; changed in place.
        tensors: what is stored.
        names: of the weights to decode.
        parts: what follows such a name, behind a colon, in the names of what is stored of it.
        decode: name and shape of a weight to the weight.

    Raises:
        CheckpointError: the tensors do not fit the network.
    """
    names, parts = list(names), list(parts)
    own = model.state_dict()
    encoded = {f"{name}:{part}" for name in names for part in parts}
    state = {name: value for name, value in tensors.items() if name not in encoded}
    for name in names:
        if name not in own:
            raise CheckpointError(f"the tensors do not fit the network, which has no {name}")
        state[name] = decode(name, own[name].shape).to(own[name].dtype)
    return Stored("dense", state).build(model)
