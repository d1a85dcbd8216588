"""Smooth Grad-CAM++ against its definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import registry
from repertoire.errors import ConfigError
from repertoire.explain import GradCAMPlusPlus, SmoothGradCAMPlusPlus


def cnn(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 8), nn.Tanh(),
        nn.Linear(8, 4),
    ).eval()  # fmt: skip


def images(count: int = 3, side: int = 9, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference(
    model: nn.Sequential, image: Tensor, target: int, samples: int, noise: float, numerator: str, seed: int
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    maps = model[:2](image[None]).detach()[0]
    first, second, third = (torch.zeros_like(maps) for _ in range(3))
    sigma = noise * float(image.max() - image.min())
    for _ in range(samples):
        noisy = image + sigma * torch.randn(image.shape, generator=generator).to(image)
        leaf = model[:2](noisy[None]).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model[2:](leaf)[0, target], leaf)
        first += gradient[0] / samples
        second += gradient[0] ** 2 / samples
        third += gradient[0] ** 3 / samples
    channels, h, w = maps.shape
    heat = torch.zeros(h, w, dtype=maps.dtype)
    for k in range(channels):
        weight = 0.0
        for i in range(h):
            for j in range(w):
                below = 2 * second[k, i, j] + maps[k].sum() * third[k, i, j]
                above = first[k, i, j] if numerator == "first" else second[k, i, j]
                weight += float(above / below * first[k, i, j].clamp_min(0)) if below != 0 else 0.0
        heat += weight * maps[k]
    return heat.clamp_min(0)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 4), st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from(["first", "second"]), st.integers(0, 99))
def test_equals_the_definition(samples, noise, numerator, seed):
    model, x, targets = cnn(seed).double(), images(seed=seed), torch.tensor([0, 3, 1])
    explainer = SmoothGradCAMPlusPlus("1", samples, noise, numerator=numerator, seed=seed, normalize=False)
    maps = explainer(model, x, targets)
    for i in range(3):
        small = reference(model, x[i], int(targets[i]), samples, noise, numerator, seed)
        expected = F.interpolate(small[None, None], (9, 9), mode="bilinear", align_corners=False)[0, 0]
        torch.testing.assert_close(maps[i], expected)


def test_is_grad_cam_plus_plus_without_noise():
    model, x = cnn(), images().float()
    torch.testing.assert_close(SmoothGradCAMPlusPlus("1", 3, 0.0)(model, x), GradCAMPlusPlus("1")(model, x))


def test_the_class_is_that_of_the_image_and_not_of_its_noisy_copies():
    model, x = cnn(), images().float()
    explainer = SmoothGradCAMPlusPlus("1", noise=5.0)
    torch.testing.assert_close(explainer(model, x), explainer(model, x, model(x).argmax(1)))


def test_the_seed_is_all_that_is_random():
    model, x = cnn(), images().float()
    before = torch.get_rng_state()
    maps = SmoothGradCAMPlusPlus("1")(model, x)
    torch.testing.assert_close(torch.get_rng_state(), before, rtol=0, atol=0)
    torch.testing.assert_close(SmoothGradCAMPlusPlus("1")(model, x), maps, rtol=0, atol=0)
    assert not torch.equal(SmoothGradCAMPlusPlus("1", seed=1)(model, x), maps)


def test_restricted_to_maps_and_neurons():
    model, x = cnn().double(), images()
    each = [SmoothGradCAMPlusPlus("1", maps=[k], normalize=False)(model, x, 1) for k in range(5)]
    pair = registry.build("explainers", "smooth-grad-cam-plus-plus:layer=1,maps=(1,3),normalize=false")(model, x, 1)
    # A weight never is negative, nor is a map after a ReLU: the whole is the sum of its parts.
    torch.testing.assert_close(pair, each[1] + each[3])
    torch.testing.assert_close(SmoothGradCAMPlusPlus("1", normalize=False)(model, x, 1), sum(each))
    # The layer gives 4 x 4; the upper left quarter of its places.
    corner = SmoothGradCAMPlusPlus("1", neurons=[0, 1, 4, 5], normalize=False)(model, x, 1)
    assert corner[:, :4, :4].any()
    assert not corner[:, 6:].any()
    assert not corner[:, :, 6:].any()
    everywhere = SmoothGradCAMPlusPlus("1", neurons=list(range(16)), normalize=False)(model, x, 1)
    torch.testing.assert_close(everywhere, sum(each))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples must be 1 or more"), ({"noise": -1.0}, "noise must be"),
        ({"noise": float("nan")}, "noise must be"), ({"numerator": "third"}, "numerator must be"),
        ({"maps": [5]}, "maps must be indices from 0 to 4 for layer '1', found"),
        ({"maps": []}, "maps must be"), ({"neurons": [-1]}, "neurons must be indices from 0 to 15"),
    ],
)  # fmt: skip
def test_options_of_no_use(options, message):
    with pytest.raises(ConfigError, match=message):
        SmoothGradCAMPlusPlus("1", **options)(cnn(), images().float())
