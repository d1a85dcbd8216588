"""NormGrad against outer products and a training step, written out."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError
from repertoire.explain import NormGrad


def cnn(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(20, 8), nn.Tanh(), nn.Linear(8, 4),
    ).double().eval()  # fmt: skip


def images(count: int = 3, side: int = 9, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference(
    model: nn.Sequential, cut: int, image: Tensor, target: int, of: str, identity: str, kernel: int
) -> Tensor:
    """The norm of each place's term in the gradient of the imagined weights, for one image."""
    leaf = model[:cut](image[None]).detach().requires_grad_()
    scores = model[cut:](leaf)
    what = scores[0, target] if of == "score" else F.cross_entropy(scores, torch.tensor([target]))
    (gradient,) = torch.autograd.grad(what, leaf)
    gradient, maps = gradient[0], leaf.detach()[0]
    channels, h, w = maps.shape
    heat = torch.zeros(h, w, dtype=maps.dtype)
    reach = kernel // 2
    for i in range(h):
        for j in range(w):
            if identity == "bias":
                term = gradient[:, i, j]
            elif identity == "scale":
                term = gradient[:, i, j] * maps[:, i, j]
            else:
                window = [
                    maps[k, a, b] if 0 <= a < h and 0 <= b < w else torch.zeros((), dtype=maps.dtype)
                    for k in range(channels)
                    for a in range(i - reach, i + reach + 1)
                    for b in range(j - reach, j + reach + 1)
                ]
                term = torch.outer(gradient[:, i, j], torch.stack(window))
            heat[i, j] = term.square().sum().sqrt()
    return heat


def large(heat: Tensor, side: int = 9) -> Tensor:
    return F.interpolate(heat[None, None], (side, side), mode="bilinear", align_corners=False)[0, 0]


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(["0", "1", "3"]), st.sampled_from(["score", "loss"]),
    st.sampled_from([("convolution", 1), ("convolution", 3), ("scale", 1), ("bias", 1)]),
    st.sampled_from([0.0, 0.3]), st.integers(0, 99),
)  # fmt: skip
def test_equals_the_definition(layer, of, imagined, step, seed):
    model, x, targets = cnn(seed), images(2, seed=seed), torch.tensor([0, 3])
    maps = NormGrad(layer, *imagined, step=step, of=of, normalize=False)(model, x, targets)
    for i in range(2):
        target, trained = int(targets[i]), copy.deepcopy(model)
        if step:
            F.cross_entropy(trained(x[i : i + 1]), targets[i : i + 1]).backward()
            torch.optim.SGD(trained.parameters(), lr=step).step()
        expected = reference(trained, int(layer) + 1, x[i], target, of, *imagined)
        torch.testing.assert_close(maps[i], large(expected))


def test_the_norm_is_that_of_a_real_layers_gradient():
    """Of a 1x1 convolution with the identity for its weights, on a map of one place that counts."""
    torch.manual_seed(0)
    real = nn.Conv2d(4, 4, 1, bias=False).double()
    with torch.no_grad():
        real.weight.copy_(torch.eye(4)[..., None, None])
    model, x = cnn(), images(1)
    y = model[:2](x).detach()
    y[:, :, 1:] = 0
    y[:, :, :, 1:] = 0
    scores = model[2:](real(y))
    scores[0, 1].backward()
    tail = nn.Sequential()
    tail.add_module("same", nn.Identity())
    tail.add_module("rest", model[2:])
    found = NormGrad("same", normalize=False)(tail, y, 1)
    assert float(found[0, 0, 0]) == pytest.approx(float(real.weight.grad.norm()))
    assert not found[0, 1:].any()


def test_layers_are_combined_by_their_geometric_mean():
    model, x = cnn(), images()
    each = [NormGrad(layer)(model, x, 1) for layer in ("1", "3")]
    torch.testing.assert_close(NormGrad("1,3", normalize=False)(model, x, 1), (each[0] * each[1]).sqrt())


def test_several_classes_each_have_a_step_of_their_own():
    model, x = cnn(), images()
    targets = torch.tensor([[0, 1], [2, 3], [1, 1]])
    explainer = NormGrad("3", step=0.5)
    maps = explainer(model, x, targets)
    for k in range(2):
        torch.testing.assert_close(maps[:, k], explainer(model, x, targets[:, k]))
    assert not torch.allclose(maps[:, 0], NormGrad("3")(model, x, targets[:, 0]), atol=1e-3)


@pytest.mark.parametrize("frozen", [False, True])
def test_the_step_is_not_taken_by_the_model_itself(frozen):
    model, x = cnn().requires_grad_(not frozen), images()
    before = copy.deepcopy(model.state_dict())
    maps = NormGrad("3", step=0.5)(model, x)
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    assert all(parameter.grad is None and parameter.requires_grad is not frozen for parameter in model.parameters())
    torch.testing.assert_close(maps, NormGrad("3", step=0.5)(cnn(), x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"identity": "pool"}, "identity must be"), ({"kernel": 2}, "kernel must be odd"),
        ({"kernel": 3, "identity": "bias"}, "1 unless identity is convolution"), ({"step": -1.0}, "step must be"),
        ({"step": math.nan}, "step must be"), ({"of": "logit"}, "of must be"),
    ],
)  # fmt: skip
def test_options_of_no_use(options, message):
    with pytest.raises(ConfigError, match=message):
        NormGrad(**options)
