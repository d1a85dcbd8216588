"""Eigen-CAM against the singular value decomposition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError
from repertoire.explain import EigenCAM, EigenGradCAM
from repertoire.explain.cam._eigencam import first_direction


def cnn(width: int = 5, stride: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4)
    ).eval()


def images(count: int = 3, size: tuple[int, int] = (9, 8), seed: int = 0) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference(maps: Tensor, centre: bool) -> Tensor:
    """Of one image's maps `[k, h, w]`, by a full decomposition."""
    features = maps.flatten(1).T
    if centre:
        features = features - features.mean(0)
    heat = features @ torch.linalg.svd(features)[2][0]
    if float((heat * features.norm(dim=1)).sum()) < 0:
        heat = -heat
    return heat.clamp_min(0).reshape(maps.shape[1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from([2, 5, 40]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from(["0", "1"]),
    st.booleans(),
    st.integers(0, 99),
)
def test_equals_the_definition(dtype, width, stride, layer, centre, seed):
    model, x = cnn(width, stride), images(2, (13, 10), seed)
    small = model.double()[: int(layer) + 1](x).detach()
    maps = EigenCAM(layer, centre)(model.to(dtype), x.to(dtype))
    for i in range(2):
        expected = F.interpolate(reference(small[i], centre)[None, None], (13, 10), mode="bilinear")[0, 0]
        torch.testing.assert_close(maps[i].double(), expected / expected.max(), rtol=0, atol=1e-4)


def test_the_largest_direction_of_hard_matrices():
    """Gaps of every size, equal eigenvalues, one direction only, zeros."""
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(60, 60, dtype=torch.float64))[0]
    for values in ([1.0, 0.999], [1.0] + [0.9] * 40, [1.0], [1e-12, 1e-13], [1e12, 1e11]):
        spectrum = torch.zeros(60, dtype=torch.float64)
        spectrum[: len(values)] = torch.tensor(values, dtype=torch.float64)
        other = torch.linalg.qr(torch.randn(70, 60, dtype=torch.float64))[0]
        found = first_direction(((basis * spectrum) @ other.T)[None])[0]
        assert float((found @ basis[:, 0]).abs()) > 1 - 1e-8
    found = first_direction(torch.eye(60)[None])[0]
    assert float(found.norm()) == pytest.approx(1, abs=1e-5)
    assert first_direction(torch.zeros(2, 60, 60)).isfinite().all()
    for shape in ((1, 5), (5, 1), (3, 40), (40, 3), (8, 8), (9, 9)):
        matrix = torch.randn(4, *shape, dtype=torch.float64)
        expected = torch.linalg.svd(matrix)[0][:, :, 0]
        torch.testing.assert_close((first_direction(matrix) * expected).sum(1).abs(), torch.ones(4).double())


def test_agrees_with_pytorch_grad_cam(peers):
    model, x = cnn(16), images(4, (24, 20)).float()
    ours = EigenCAM("1", centre=True)(model, x)
    with peers.EigenCAM(model, [model[1]]) as peer:
        theirs = torch.from_numpy(peer(x.clone(), None))
    # The peer leaves the sign as it comes, and may show the other side, which is zero here where ours is not.
    features = model[1](model[0](x)).detach()
    features = features - features.mean((2, 3), keepdim=True)
    for i in range(4):
        heat = (torch.linalg.svd(features[i].flatten(1).T)[2][0] @ features[i].flatten(1)).reshape(features.shape[2:])
        sides = [
            F.interpolate(side.clamp_min(0)[None, None], (24, 20), mode="bilinear")[0, 0] for side in (heat, -heat)
        ]
        sides = [(side - side.min()) / (side.max() - side.min() + 1e-7) for side in sides]
        assert sum(bool(((side - theirs[i]).abs() < 1e-4).all()) for side in sides) == 1
        assert sum(bool(((side - ours[i]).abs() < 1e-4).all()) for side in sides) == 1


def test_does_not_depend_on_the_class_and_checks_targets_all_the_same():
    model, x = cnn(), images().float()
    maps = EigenCAM()(model, x)
    torch.testing.assert_close(EigenCAM()(model, x, torch.tensor([0, 1, 2])), maps)
    several = EigenCAM()(model, x, torch.tensor([[0, 1], [2, 3], [1, 1]]))
    torch.testing.assert_close(several, maps[:, None].expand(-1, 2, -1, -1))
    with pytest.raises(ShapeError, match="from 0 to 3, found 4"):
        EigenCAM()(model, x, 4)


def test_the_pass_ends_at_the_layer():
    class Counted(nn.Identity):
        runs = 0

        def forward(self, x: Tensor) -> Tensor:
            Counted.runs += 1
            return x

    model = cnn()
    model.insert(2, Counted())
    EigenCAM("1")(model, images().float())
    assert Counted.runs == 0
    EigenCAM("1")(model, images().float(), 1)
    assert Counted.runs == 1
    assert not any(module._forward_hooks for module in model.modules())


def test_needs_no_scores_but_maps():
    model = cnn()
    model.add_module("after", nn.Identity())
    model.forward = lambda x: model[:2](x)
    with pytest.raises(ConfigError, match="does not run"):
        EigenCAM("after")(model, images().float())


def test_turned_towards_what_is_large():
    """After a ReLU all of a map is positive; of features of both signs, where they are long."""
    model = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(75, 2))
    x = torch.zeros(1, 3, 5, 5)
    x[0, :, 1:3, 1:3] = torch.tensor([-3.0, 2.0, -1.0])[:, None, None]
    x[0, :, 4, 4] = torch.tensor([1.0, -1.0, 0.0])
    heat = EigenCAM("0", normalize=False)(model, x)[0]
    torch.testing.assert_close(heat[1:3, 1:3], torch.full((2, 2), 14**0.5), rtol=1e-2, atol=0)
    assert heat[4, 4] == 0
    assert not EigenCAM("0")(model, torch.zeros(1, 3, 5, 5)).any()


@pytest.mark.parametrize("width", [3, 40])
def test_eigen_grad_cam_is_the_first_component_of_gradient_times_maps(width):
    """By the singular value decomposition of one image at a time, turned to agree with the sum over maps."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(width * 16, 4)).double()
    x, targets = torch.rand(3, 3, 6, 6, dtype=torch.float64), torch.tensor([[0, 1], [2, 2], [3, 1]])
    found = EigenGradCAM("1", normalize=False)(net, x, targets)
    for i in range(3):
        for k in range(2):
            maps = net[:2](x[i : i + 1]).detach().requires_grad_()
            (slope,) = torch.autograd.grad(net[2:](maps)[0, targets[i, k]], maps)
            matrix = (slope * maps.detach())[0].flatten(1).T
            _, _, vectors = torch.linalg.svd(matrix, full_matrices=False)
            heat = matrix @ vectors[0]
            heat = heat if float(heat @ matrix.sum(1)) >= 0 else -heat
            small = heat.relu().view(1, 1, 4, 4)
            expected = nn.functional.interpolate(small, (6, 6), mode="bilinear", align_corners=False)[0, 0]
            torch.testing.assert_close(found[i, k], expected, rtol=1e-3, atol=1e-4)
