from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repertoire import backbones, recipe
from repertoire.adapters import attach
from repertoire.errors import ConfigError, UnknownName


def parts(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    change = layer.parametrizations.weight
    return change.original.double(), change[0].a.double(), change[0].b.double()


def fill(adapted) -> None:
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.copy_(torch.randn_like(parameter))


def test_a_linear_layer_agrees_with_two_thin_products():
    layer = nn.Linear(12, 10)
    adapted = attach(layer, "lora:rank=3,alpha=6")
    fill(adapted)
    x = torch.randn(5, 12, dtype=torch.float64)
    weight, a, b = parts(layer)
    expected = x @ weight.T + layer.bias.double() + 2 * (x @ a.T @ b.T)
    torch.testing.assert_close(layer(x.float()).double(), expected, rtol=1e-4, atol=1e-4)
    assert adapted.count == 3 * (10 + 12)


def test_a_convolution_agrees_with_a_thin_one_and_a_pointwise_one():
    layer = nn.Conv2d(6, 16, 3, stride=2, padding=1)
    adapted = attach(layer, "lora:rank=4")
    fill(adapted)
    x = torch.randn(2, 6, 9, 9, dtype=torch.float64)
    weight, a, b = parts(layer)
    thin = F.conv2d(x, a.view(4, 6, 3, 3), stride=2, padding=1)
    expected = F.conv2d(x, weight, layer.bias.double(), stride=2, padding=1) + F.conv2d(thin, b[..., None, None])
    torch.testing.assert_close(layer(x.float()).double(), expected, rtol=1e-4, atol=1e-4)
    assert adapted.count == 4 * (16 + 6 * 9)


def test_layers_that_would_not_become_smaller_are_left_as_they_are():
    net = nn.Sequential(nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 32, 1), nn.Flatten(), nn.Linear(32, 4))
    assert attach(net, "lora:rank=6").layers == ("1",)
    with pytest.raises(ConfigError, match=r"lora:rank=64.*Use a smaller rank"):
        attach(nn.Linear(32, 32), "lora:rank=64")


def test_layers_are_chosen_by_kind():
    net = nn.Sequential(nn.Conv2d(16, 32, 3), nn.Flatten(), nn.Linear(32, 32))
    assert attach(net, "lora:rank=1,layers=conv").layers == ("0",)


@pytest.mark.parametrize(
    ("spec", "words"), [("lora:rank=0", "rank must be positive"), ("lora:alpha=0", "alpha must be pos")]
)
def test_options_out_of_range(spec: str, words: str):
    with pytest.raises(ConfigError, match=words):
        attach(nn.Linear(32, 32), spec)
    with pytest.raises(UnknownName, match="adapter"):
        attach(nn.Linear(32, 32), "lorra")


def check(net: nn.Module, size: int) -> None:
    """Unchanged when attached, learning, and equal when merged, for a network with layers of its own kind."""
    net.eval()
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = net(images)
        adapted = attach(net, "lora:rank=2")
        torch.testing.assert_close(net(images), before, rtol=0, atol=1e-6)
    assert len(adapted.layers) > 5
    net(images).sum().backward()
    assert all(p.grad is not None for p in adapted.parameters())
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name.endswith(".b"):
                parameter.normal_(std=0.02)
        after = net(images)
        # A network with random weights may give very small numbers.
        size = float(before.abs().max())
        assert float((after - before).abs().max()) > 1e-2 * size
        plain = adapted.merged()
        torch.testing.assert_close(plain(images), after, rtol=1e-5, atol=1e-5 * size)


def test_it_fits_the_built_in_network():
    check(recipe.build_backbone("lite0", 3, 64, pretrained=False), 64)


def test_it_fits_a_vision_transformer_of_timm():
    net = backbones.Timm("test_vit", image_size=160)
    check(net, 160)
    assert any("qkv" in name for name, _ in net.named_parameters())
