"""Grad-CAM++, XGrad-CAM and Layer-CAM against their definitions, and against pytorch-grad-cam."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.explain import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM

METHODS = {"grad-cam++": GradCAMPlusPlus, "xgrad-cam": XGradCAM, "layer-cam": LayerCAM, "hires-cam": HiResCAM}


def cnn(seed: int = 0, width: int = 5, classes: int = 4) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        OrderedDict(
            first=nn.Conv2d(3, width, 3, padding=1), relu=nn.ReLU(), last=nn.Conv2d(width, width, 3, stride=2),
            rectified=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(2), flat=nn.Flatten(), hidden=nn.Linear(4 * width, 8),
            tanh=nn.Tanh(), linear=nn.Linear(8, classes),
        )
    ).eval()  # fmt: skip


def images(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference(method: str, model: nn.Sequential, cut: int, image: Tensor, target: int) -> Tensor:
    """The papers' formulas for one image, a number at a time."""
    with torch.no_grad():
        maps = model[:cut](image[None])
    maps = maps.requires_grad_()
    model[cut:](maps)[0, target].backward()
    gradient, maps = maps.grad[0], maps.detach()[0]
    channels, h, w = maps.shape
    heat = torch.zeros(h, w, dtype=torch.float64)
    for k in range(channels):
        total = sum(float(maps[k, i, j]) for i in range(h) for j in range(w))
        weight = 0.0
        for i in range(h):
            for j in range(w):
                g, a = float(gradient[k, i, j]), float(maps[k, i, j])
                if method == "grad-cam++" and g != 0:
                    weight += g**2 / (2 * g**2 + total * g**3) * max(g, 0.0)
                elif method == "xgrad-cam" and total != 0:
                    weight += a / total * g
                elif method == "layer-cam":
                    heat[i, j] += max(g, 0.0) * a
                elif method == "hires-cam":
                    heat[i, j] += g * a
        if method not in ("layer-cam", "hires-cam"):
            heat += weight * maps[k]
    return heat.clamp_min(0)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 3), st.integers(5, 9), st.integers(5, 9), st.sampled_from(["last", "rectified"]), st.integers(0, 99)
)
def test_equals_the_definition(method, count, height, width, layer, seed):
    model = cnn(seed).double()
    x, targets = images(count, (height, width), seed), torch.arange(count) % 4
    raw = METHODS[method](layer, normalize=False)(model, x, targets)
    for i in range(count):
        small = reference(method, model, 3 if layer == "last" else 4, x[i], int(targets[i]))
        expected = F.interpolate(small[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]
        torch.testing.assert_close(raw[i], expected)


@pytest.mark.parametrize("method", METHODS)
def test_agrees_with_pytorch_grad_cam(method, peers):
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    peer = {"grad-cam++": peers.GradCAMPlusPlus, "xgrad-cam": peers.XGradCAM, "layer-cam": peers.LayerCAM}[method]
    model, x = cnn(width=16), images(4, (24, 20)).float()
    with torch.no_grad():
        # Gradients so large that the constant that the peer adds to denominators plays no part.
        model.linear.weight.mul_(1000)
    for target in range(4):
        ours = METHODS[method]("rectified")(model, x, target)
        with peer(model, [model.rectified]) as theirs:
            expected = torch.from_numpy(theirs(x.clone(), [ClassifierOutputTarget(target)] * 4))
        low = ours.amin((1, 2), keepdim=True)  # the peer shifts each map to start at zero
        torch.testing.assert_close(
            (ours - low) / (ours.amax((1, 2), keepdim=True) - low + 1e-7), expected, rtol=0, atol=1e-4
        )


def test_gradients_that_are_small_are_no_zeros():
    """g^3 of such gradients is below what a float can hold, and a constant of 1e-6 would drown g^2."""
    model, x = cnn(), images(2, (8, 8)).float()
    with torch.no_grad():
        model.linear.weight.mul_(1e-20)
    tiny = GradCAMPlusPlus("rectified")(model, x, 1)
    assert tiny.any()
    # With so small a gradient the weights are half the sums of its positive part.
    maps, large = model[:4](x).detach(), cnn()
    with torch.no_grad():
        large.linear.weight.copy_(model.linear.weight * 1e20)
    leaf = maps.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(large[4:](leaf)[:, 1].sum(), leaf)
    expected = (gradient.clamp_min(0).sum((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
    expected = F.interpolate(expected, (8, 8), mode="bilinear")[:, 0]
    torch.testing.assert_close(tiny, expected / expected.amax((1, 2), keepdim=True))


def test_all_are_cam_where_the_gradient_is_the_same_everywhere():
    """After a global average with positive weights, all weights are those of the classifier, up to a factor."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    with torch.no_grad():
        model[4].weight.abs_()
    x = images(2, (9, 9)).float()
    expected = GradCAM("1")(model, x, 0)
    for method in (XGradCAM, LayerCAM):
        torch.testing.assert_close(method("1")(model, x, 0), expected)


def test_maps_that_sum_to_zero():
    """Neither weight is defined there: XGrad-CAM's is zero, Grad-CAM++ has half of the positive gradient."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            y = self.same(x)
            return torch.stack([y.square().sum((1, 2, 3)), y[:, 0].sum((1, 2))], 1)

    x = torch.tensor([[[[1.0, -1.0], [2.0, -2.0]]]])
    assert not XGradCAM("same")(Odd(), x, 0).any()
    torch.testing.assert_close(GradCAMPlusPlus("same", normalize=False)(Odd(), x, 0), 3 * x[:, 0].relu())


def test_hires_cam_is_what_each_place_adds_to_a_linear_score():
    """Where one linear layer follows, the unrectified map sums to the score less its bias; here all is positive."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)).double()
    net[3].weight.data.abs_()
    x = torch.rand(3, 1, 6, 6, dtype=torch.float64)
    heat = HiResCAM("1", normalize=False)(net, x, 1)
    torch.testing.assert_close(heat.sum((1, 2)), net(x)[:, 1] - net[3].bias[1])
