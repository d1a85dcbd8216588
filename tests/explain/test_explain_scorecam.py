"""Score-CAM against its definition, and against pytorch-grad-cam."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError
from repertoire.explain import ScoreCAM


class Net(nn.Module):
    """Counts the images that pass."""

    def __init__(self, width: int = 6, stride: int = 2, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, width, 3, stride, 1)
        self.relu = nn.ReLU()
        self.linear = nn.Linear(4 * width, 4)
        self.passed = 0
        self.most = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passed += len(x)
        self.most = max(self.most, len(x))
        return self.linear(F.adaptive_avg_pool2d(self.relu(self.conv(x)), 2).flatten(1))


def images(count: int = 3, size: tuple[int, int] = (9, 8), seed: int = 0) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def reference(model: Net, image: Tensor, target: int, channels: int | None = None) -> Tensor:
    """The paper's algorithm for one image and one map at a time, with the black image that it subtracts."""
    maps = model.relu(model.conv(image[None]))[0]
    kept = range(len(maps))
    if channels is not None:
        kept = sorted(kept, key=lambda k: -float(((maps[k] - maps[k].mean()) ** 2).mean()))[:channels]
    black = float(model(torch.zeros_like(image)[None])[0, target])
    confidence = {}
    for k in kept:
        mask = F.interpolate(maps[k][None, None], image.shape[1:], mode="bilinear", align_corners=False)[0, 0]
        low, high = float(mask.min()), float(mask.max())
        # Asked of the map itself: to enlarge a constant makes rounding errors.
        varies = float(maps[k].max()) > float(maps[k].min())
        mask = (mask - low) / (high - low) if varies else torch.zeros_like(mask)
        confidence[k] = float(model((image * mask)[None])[0, target]) - black
    total = sum(math.exp(value) for value in confidence.values())
    return sum(math.exp(confidence[k]) / total * maps[k] for k in kept).clamp_min(0)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([None, 1, 4, 9]),
    st.integers(1, 7),
    st.sampled_from([1, 2, 3]),
    st.integers(0, 99),
)
def test_equals_the_definition(count, channels, rows, stride, seed):
    model, x = Net(stride=stride, seed=seed).double().eval(), images(count, seed=seed)
    targets = torch.arange(count) % 4
    maps = ScoreCAM("relu", channels, rows, normalize=False)(model, x, targets)
    for i in range(count):
        expected = reference(model, x[i], int(targets[i]), channels)
        expected = F.interpolate(expected[None, None], x.shape[2:], mode="bilinear", align_corners=False)[0, 0]
        torch.testing.assert_close(maps[i], expected)


def test_maps_that_are_the_same_everywhere_mask_to_black():
    model, x = Net().double().eval(), images()
    with torch.no_grad():
        model.conv.weight[1:4] = 0
        model.conv.bias[1:3] = torch.tensor([0.5, -0.5])
    maps = ScoreCAM("relu", normalize=False)(model, x, 2)
    for i in range(3):
        expected = F.interpolate(reference(model, x[i], 2)[None, None], x.shape[2:], mode="bilinear")[0, 0]
        torch.testing.assert_close(maps[i], expected)


def test_makes_no_more_passes_than_it_needs():
    model, x = Net().eval(), images().float()
    with torch.no_grad():
        model.conv.weight[1:4] = 0  # three dead maps of six
    ScoreCAM("relu", rows=4)(model, x, torch.tensor([[0, 1], [2, 3], [1, 1]]))
    passed = model.passed
    alive = int(model.relu(model.conv(x)).flatten(2).std(2).count_nonzero())
    assert alive <= 9
    assert passed == 3 + 1 + alive, "images, black, and the other maps; once for both classes"
    assert model.most == 4


def test_agrees_with_pytorch_grad_cam(peers):
    """Where maps are as large as the images; the peer enlarges masks with another bilinear rule."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, x = Net(stride=1).eval(), images(3, (12, 12)).float()
    for target in range(4):
        ours = ScoreCAM("relu")(model, x, target)
        with peers.ScoreCAM(model, [model.relu]) as peer:
            theirs = torch.from_numpy(peer(x.clone(), [ClassifierOutputTarget(target)] * 3))
        low = ours.amin((1, 2), keepdim=True)  # the peer shifts each map to start at zero
        torch.testing.assert_close(
            (ours - low) / (ours.amax((1, 2), keepdim=True) - low + 1e-7), theirs, rtol=0, atol=1e-4
        )


def test_takes_no_gradient():
    class Hard(Net):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(x)

    torch.testing.assert_close(
        ScoreCAM("relu")(Hard().eval(), images().float()), ScoreCAM("relu")(Net().eval(), images().float())
    )


@pytest.mark.parametrize("options", [{"channels": 0}, {"rows": 0}])
def test_options_of_no_use(options):
    with pytest.raises(ConfigError, match="must be 1 or more"):
        ScoreCAM(**options)
