"""The auxiliary network on patches: where its layers stand, and that it sees every pixel."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from repertoire.errors import ConfigError
from repertoire.local import LocalLearning


def sgd(block: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(block.parameters(), lr=0.1)


def behind_maps(spec: str, side: int) -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1), nn.Flatten())
    net.append(nn.Linear(8 * side * side, 5))
    learner = LocalLearning(net, auxiliary=spec, optimizer=sgd, at=("0",), example=torch.zeros(2, 3, side, side))
    return learner.auxiliaries[0]


@pytest.mark.parametrize(
    ("side", "patch", "found"),
    [(32, 4, 8), (30, 4, 8), (17, 2, 9), (28, 4, 7), (8, None, 8), (7, None, 7), (1, None, 1)],
)
def test_patches_are_as_large_as_the_maps_ask_for(side, patch, found):
    network = behind_maps("patches", side)
    first = network.layers[0]
    assert first.kernel_size == ((patch, patch) if patch else (3, 3))
    assert first(torch.zeros(1, 4, side, side)).shape == (1, 64, found, found)
    assert [layer.stride[0] for layer in network.layers if isinstance(layer, nn.Conv2d)] == [patch or 1, 2, 1]


@pytest.mark.parametrize("side", [29, 30, 32, 33, 57])
def test_every_pixel_has_a_say(side):
    """The point of patches: the gradient that reaches the block differs from pixel to pixel, and none is left out."""
    network = behind_maps("patches:depth=2", side).eval()
    x = torch.randn(1, 4, side, side, requires_grad=True)
    network(x)[0, 0].backward()
    assert x.grad.abs().sum(1).gt(0).all()
    averaging = behind_maps("conv:depth=2", 32).eval()
    y = torch.randn(1, 4, 32, 32, requires_grad=True)
    averaging(y)[0, 0].backward()
    blocks = y.grad.unfold(2, 4, 4).unfold(3, 4, 4)
    assert torch.equal(blocks, blocks[..., :1, :1].expand_as(blocks)), "after an average all pixels of a patch are one"


def test_widths_and_what_has_no_grid():
    assert [layer.out_channels for layer in behind_maps("patches:depth=4,channels=12,stem=6", 32).layers[::3]] == [
        6,
        12,
        12,
        12,
    ]
    net = nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 3))
    learner = LocalLearning(net, 2, "patches:stem=5,channels=6", sgd, example=torch.zeros(2, 7))
    layers = learner.auxiliaries[0].layers
    assert [(layer.in_features, layer.out_features) for layer in layers[::3]] == [(9, 5), (5, 6), (6, 6)]


@pytest.mark.parametrize("option", ["depth", "channels", "stem", "side"])
def test_options_must_be_positive(option):
    with pytest.raises(ConfigError, match=f"patches: {option} is 0; expected 1 or more"):
        behind_maps(f"patches:{option}=0", 32)
