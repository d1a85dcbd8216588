"""Residual networks: sizes and formula from the paper, published weights, and what a hook may rely on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from repertoire import backbones, registry
from repertoire.backbones import ResNet
from repertoire.errors import ConfigError

# He et al. (2016), table 6, in millions; the classifier's 650 parameters are the head's here.
PUBLISHED = {"resnet20": 0.27, "resnet32": 0.46, "resnet44": 0.66, "resnet56": 0.85, "resnet110": 1.7}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_paper(name: str) -> None:
    net = getattr(backbones, name)()
    count = sum(p.numel() for p in net.parameters()) + 64 * 10 + 10
    digits = 1 if name == "resnet110" else 2
    assert round(count / 1e6, digits) == PUBLISHED[name]
    assert 1 + 2 * (len(net.blocks) - 1) + 1 == int(name.removeprefix("resnet"))  # stem, two a block, the classifier


def _normalise(x: torch.Tensor, state: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    mean, var, gain, shift = (
        state[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * gain + shift


def _reference(state: dict[str, torch.Tensor], x: torch.Tensor, per_stage: int, shortcut: str) -> torch.Tensor:
    """Section 3 of the paper in float64, a block after the other."""
    x = F.conv2d(x, state["blocks.0.conv.weight"], padding=1)
    x = _normalise(x, state, "blocks.0.norm").clamp_min(0)
    for index in range(1, 3 * per_stage + 1):
        name = f"blocks.{index}"
        stride = 2 if index in (per_stage + 1, 2 * per_stage + 1) else 1
        y = F.conv2d(x, state[f"{name}.conv1.weight"], padding=1, stride=stride)
        y = _normalise(y, state, f"{name}.norm1").clamp_min(0)
        y = _normalise(F.conv2d(y, state[f"{name}.conv2.weight"], padding=1), state, f"{name}.norm2")
        if stride == 2 and shortcut == "A":
            half = x[:, :, ::2, ::2]
            missing = y.shape[1] - half.shape[1]
            x = torch.zeros_like(y)
            x[:, missing // 2 : missing // 2 + half.shape[1]] = half
        elif stride == 2:
            x = F.conv2d(x, state[f"{name}.shortcut.conv.weight"], stride=2)
            x = _normalise(x, state, f"{name}.shortcut.norm")
        x = (x + y).clamp_min(0)
    return x.mean(dim=(2, 3))


@settings(max_examples=15, deadline=None)
@given(
    per_stage=st.integers(1, 2),
    channels=st.integers(1, 4),
    width=st.integers(1, 5),
    shortcut=st.sampled_from(["A", "B"]),
    height=st.integers(1, 11),
    breadth=st.integers(1, 11),
)
def test_it_computes_the_papers_formula(
    per_stage: int, channels: int, width: int, shortcut: str, height: int, breadth: int
) -> None:
    torch.manual_seed(0)
    net = ResNet(6 * per_stage + 2, channels, width, shortcut=shortcut).double().eval()  # type: ignore[arg-type]
    state = net.state_dict()
    for name, tensor in state.items():
        if "norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    x = torch.randn(2, channels, height, breadth, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(net(x), _reference(state, x, per_stage, shortcut))


def test_the_stem_follows_the_image() -> None:
    x = torch.randn(1, 3, 96, 96)
    assert ResNet(8, image_size=64).blocks[0](x).shape[2:] == (96, 96)
    assert ResNet(8, image_size=65).blocks[0](x).shape[2:] == (24, 24)
    assert ResNet(8, image_size=65, stem="small").blocks[0](x).shape[2:] == (96, 96)
    assert ResNet(8, image_size=32, stem="large").blocks[0](x).shape[2:] == (24, 24)


def test_weights_have_the_variance_of_the_paper() -> None:
    torch.manual_seed(0)
    weight = backbones.resnet20().blocks[9].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


def test_options_from_a_spec() -> None:
    net = registry.build("backbones", "resnet20:width=8,shortcut=B,stem=large", in_channels=1, image_size=32)
    assert net.out_features == 32
    assert net.blocks[0].conv.kernel_size == (7, 7)
    assert "blocks.4.shortcut.conv.weight" in net.state_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 18}, "depth is 18.*6n"),
        ({"depth": 2}, "depth is 2"),
        ({"depth": 20, "width": 0}, "width is 0"),
        ({"depth": 20, "in_channels": 0}, "in_channels is 0"),
        ({"depth": 20, "stem": "huge"}, "stem is 'huge'"),
        ({"depth": 20, "shortcut": "C"}, "shortcut is 'C'"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ResNet(**options)
