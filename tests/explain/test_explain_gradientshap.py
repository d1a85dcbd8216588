"""Expected gradients beside their formula, sample by sample, and beside integrated gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from repertoire.errors import ConfigError, ShapeError
from repertoire.explain import GradientSHAP, IntegratedGradients


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 3)).double()


def rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_is_the_mean_of_gradients_on_the_ways_from_drawn_baselines(noise, batch_size):
    net, x, others, samples = network(), rows(3), rows(6, 1), 12
    found = GradientSHAP(others, samples, noise, seed=4, batch_size=batch_size, normalize=False)(net, x, 2)
    generator = torch.Generator().manual_seed(4)
    drawn = torch.randint(6, (samples,), generator=generator)
    shares = torch.rand(samples, generator=generator, dtype=torch.float64)
    expected = torch.zeros(3, 4, dtype=torch.float64)
    random = torch.Generator().manual_seed(5)
    added = [torch.randn(4, generator=random).double() for _ in range(samples)]
    for i in range(3):
        for s in range(samples):
            end = x[i] + (noise * (x[i].max() - x[i].min()) * added[s] if noise else 0)
            point = (others[drawn[s]] + shares[s] * (end - others[drawn[s]])).requires_grad_()
            (slope,) = torch.autograd.grad(net(point)[2], point)
            expected[i] += slope * (end - others[drawn[s]]) / samples
    torch.testing.assert_close(found, expected)


def test_of_one_baseline_it_nears_integrated_gradients_and_of_several_their_mean():
    net, x, others = network(), rows(2), rows(3, 1)
    many = GradientSHAP(others[:1], 4000, normalize=False)(net, x, 0)
    torch.testing.assert_close(
        many, IntegratedGradients(baseline=others[0], normalize=False)(net, x, 0), rtol=0, atol=0.05
    )
    each = torch.stack([IntegratedGradients(baseline=b, normalize=False)(net, x, 0) for b in others]).mean(0)
    torch.testing.assert_close(GradientSHAP(others, 4000, normalize=False)(net, x, 0), each, rtol=0, atol=0.1)


def test_images_do_not_depend_on_each_other_and_targets_may_be_several():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    x, others = torch.rand(3, 3, 8, 8), torch.rand(5, 3, 8, 8)
    explainer = GradientSHAP(others, 8, noise=0.1, channels="max", batch_size=4)
    both = explainer(net, x, torch.tensor([[0, 1], [2, 0], [1, 1]]))
    assert both.shape == (3, 2, 8, 8)
    torch.testing.assert_close(both[:, 0], explainer(net, x, torch.tensor([0, 2, 1])))
    torch.testing.assert_close(both[2:, 1], explainer(net, x[2:], 1))


def test_what_does_not_fit():
    with pytest.raises(ShapeError, match=r"baselines must be \[B, 4\]"):
        GradientSHAP(torch.zeros(3, 5))(network(), rows(2))
    with pytest.raises(ConfigError, match="samples must be 1 or more"):
        GradientSHAP(samples=0)
    with pytest.raises(ConfigError, match="noise must be 0 or more"):
        GradientSHAP(noise=-1.0)
