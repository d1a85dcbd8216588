"""The fast copy computes what the original does, and leaves it alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from repertoire import registry
from repertoire.backbones import Backbone, frozen
from repertoire.errors import ConfigError, MissingExtra

NETWORKS = ["convnet:width=8", "resnet20:width=8,shortcut=B", "lite0:pretrained=false", "mlp", "vit:depth=2"]
NETWORKS += ["timm:resnet18", "timm:efficientnet_b0", "timm:convnext_atto", "timm:densenet121"]


def _net(spec: str) -> Backbone:
    torch.manual_seed(0)
    try:
        net = registry.build("backbones", spec, in_channels=3, image_size=32)
    except MissingExtra as error:
        pytest.skip(str(error))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                tensor.uniform_(0.5, 1.5)
    return net


def _norms(net: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())


@pytest.mark.parametrize("spec", NETWORKS)
def test_it_computes_the_same(spec: str) -> None:
    net = _net(spec)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    copy = frozen(net, 32)
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = net.eval()(images)
        torch.testing.assert_close(copy(images), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
        for ours, theirs in zip(copy.stages(images), net.stages(images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))
    assert not copy.training
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    # What stands before a convolution instead of after it (densenet) cannot be folded into one.
    assert _norms(copy) == (0 if "densenet" not in spec else 62)


def test_bfloat16_is_near_and_gives_float32() -> None:
    net = _net("resnet20:width=8").eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        copy = frozen(net, 32, precision="bfloat16")
        found, expected = copy(images), net(images)
        assert [maps.dtype for maps in copy.stages(images)] == [torch.bfloat16] * 3
    assert found.dtype == torch.float32
    assert (found - expected).norm() < 0.05 * expected.norm()


class _Shared(Backbone):
    """One convolution that is called twice, whose second output no normalisation takes."""

    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.twice = twice
        self.blocks = nn.ModuleList([nn.Identity()])
        self.stage_ends, self.in_channels, self.out_features = [0], 3, 3
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.norm.running_mean.fill_(3.0)  # type: ignore[union-attr]

    def pool(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return (self.norm(y) + (self.conv(x * 2) if self.twice else y)).mean(dim=(2, 3))


class _Preactivated(Backbone):
    """An activation whose input is used once more, or is what a stage gives out."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        self.again = again
        self.blocks = nn.ModuleList([nn.Conv2d(3, 3, 1), nn.ReLU()])
        self.stage_ends, self.in_channels, self.out_features = [0, 1], 3, 3

    def pool(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks[0](x)
        return self.pool(self.blocks[1](y) - y if self.again else self.blocks[1](y))


@pytest.mark.parametrize("again", [False, True])
def test_what_is_used_elsewhere_is_not_overwritten(again: bool) -> None:
    net = _Preactivated(again).eval()
    copy = frozen(net, 8)
    images = torch.randn(2, 3, 8, 8)
    given = images.clone()
    with torch.no_grad():
        torch.testing.assert_close(copy(given), net(images))
        torch.testing.assert_close(copy.stages(given)[0], net.stages(images)[0])
    assert torch.equal(given, images)
    assert not copy.blocks[1].inplace


def test_activations_need_no_memory_of_their_own() -> None:
    copy = frozen(_net("lite0:pretrained=false"), 32)
    assert {module.inplace for module in copy.modules() if isinstance(module, nn.ReLU6)} == {True}


@pytest.mark.parametrize("twice", [False, True])
def test_what_is_used_elsewhere_is_not_folded(twice: bool) -> None:
    net = _Shared(twice).eval()
    copy = frozen(net, 8)
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(copy(images), net(images))
    assert _norms(copy) == 1


def test_unknown_precision() -> None:
    with pytest.raises(ConfigError, match="precision is 'float16'"):
        frozen(_net("convnet:width=4"), 32, precision="float16")  # type: ignore[arg-type]
