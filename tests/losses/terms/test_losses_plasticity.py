from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from repertoire import backbones, heads, losses
from repertoire.data import Batch
from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import SpectralPenalty, wasserstein_to_init
from repertoire.methods import Classifier, Normalize, Regularised
from repertoire.ops import TopSingularValue


def settle(top: nn.Module, *inputs: torch.Tensor | nn.Module, updates: int = 400) -> torch.Tensor:
    for _ in range(updates):
        top(*inputs)
        for module in top.modules():
            if isinstance(module, TopSingularValue):
                module.after_update()
    return top(*inputs)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 999))
def test_the_largest_singular_value_is_that_of_the_decomposition(rows, columns, seed):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    expected = torch.linalg.svdvals(weight.double())[0].item()
    assert settle(TopSingularValue(weight), weight).item() == pytest.approx(expected, rel=1e-3)


def test_of_a_convolution_it_is_that_of_the_matrix_of_its_channels():
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.linalg.svdvals(weight.reshape(4, 27))[0].item()
    assert settle(TopSingularValue(weight), weight).item() == pytest.approx(expected, rel=1e-3)


def test_the_gradient_is_the_product_of_the_singular_vectors():
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    sigma = settle(TopSingularValue(weight), weight)
    sigma.backward()
    u, _, v = torch.linalg.svd(weight.detach())
    torch.testing.assert_close(weight.grad, torch.outer(u[:, 0], v[0]), rtol=0, atol=1e-3)


def test_it_follows_a_weight_that_moves_and_stands_still_otherwise():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(30, 20, generator=generator)
    top = TopSingularValue(weight)
    kept = top.u.clone()
    top(weight)
    assert torch.equal(top.u, kept), "not before the weights have changed"
    for _ in range(200):
        weight = weight + 0.002 * torch.randn(30, 20, generator=generator)
        top(weight)
        top.after_update()
    assert top(weight).item() == pytest.approx(torch.linalg.svdvals(weight)[0].item(), rel=1e-2)


def test_a_weight_of_zeros_does_not_lose_the_vector():
    weight = torch.zeros(3, 2, requires_grad=True)
    top = TopSingularValue(weight)
    assert settle(top, weight, updates=2).item() == 0
    assert top.u.norm().item() == pytest.approx(1)


def test_a_spoilt_step_moves_no_vector():
    weight = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    top = TopSingularValue(weight, warm_up=1)
    kept = top.u.clone()
    top(weight, torch.tensor(torch.nan))
    top.after_update()
    assert torch.equal(top.u, kept)


@pytest.mark.parametrize("power", [1, 2])
def test_the_penalty_is_the_sum_over_layers_biases_and_gains(power):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3, bias=False))
    with torch.no_grad():
        network[1].weight.uniform_(0.5, 2)
        network[1].bias.uniform_(0.5, 2)
    found = settle(SpectralPenalty(network, power), network).item()
    matrices = [network[0].weight.flatten(1), network[3].weight]
    expected = sum((torch.linalg.svdvals(m)[0].item() ** power - 1) ** 2 for m in matrices)
    expected += sum(bias.norm().item() ** (2 * power) for bias in (network[0].bias, network[1].bias))
    expected += (network[1].weight ** power - 1).square().mean().item()
    assert found == pytest.approx(expected, rel=1e-3)


def test_there_must_be_a_layer():
    with pytest.raises(ConfigError, match="no layer of the network has a weight that learns"):
        SpectralPenalty(nn.Linear(2, 2).requires_grad_(False))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(0, 999))
def test_the_distance_of_sorted_weights(count, seed):
    generator = torch.Generator().manual_seed(seed)
    weight, first = torch.randn(2, count, generator=generator, dtype=torch.float64)
    expected = sum((a - b) ** 2 for a, b in zip(sorted(weight.tolist()), sorted(first.tolist()), strict=True))
    assert wasserstein_to_init([weight], [first]).item() == pytest.approx(expected)
    order = torch.randperm(count, generator=generator)
    torch.testing.assert_close(wasserstein_to_init([weight[order]], [first]), wasserstein_to_init([weight], [first]))


def test_a_permutation_of_the_first_weights_costs_nothing():
    first = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert wasserstein_to_init([first.flip(0, 1)], [first]).item() == 0


def test_sizes_must_agree():
    with pytest.raises(ShapeError, match="initial 0 must have 3 entries"):
        wasserstein_to_init([torch.zeros(3)], [torch.zeros(4)])


def method(penalty: str) -> tuple[Regularised, Batch]:
    torch.manual_seed(0)
    net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
    model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
    images = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    batch = Batch((images,), torch.tensor([0, 0, 1, 1]), torch.arange(4))
    return Regularised(model, losses.CrossEntropy(), penalty, strength=0.5), batch


@pytest.mark.parametrize("penalty", ["spectral", "wasserstein", "l2-init", "l2"])
def test_the_method_adds_the_penalty_of_its_weights(penalty):
    made, batch = method(penalty)
    made.eval()
    first = [weight.detach().clone() for weight in made.model.parameters()]
    with torch.no_grad():
        for weight in made.model.parameters():
            weight.mul_(1.5)
    now = list(made.model.parameters())
    expected = {
        "wasserstein": lambda: wasserstein_to_init(now, first),
        "l2-init": lambda: sum((w - f).square().sum() for w, f in zip(now, first, strict=True)),
        "l2": lambda: sum(w.square().sum() for w in now),
        "spectral": lambda: SpectralPenalty(made.model)(made.model),
    }[penalty]()
    step = made.step(batch)
    torch.testing.assert_close(step.logs["penalty"], expected.detach(), rtol=1e-2, atol=1e-6)
    plain = nn.functional.cross_entropy(made.model(batch.images), batch.targets)
    torch.testing.assert_close(step.loss, plain + 0.5 * step.logs["penalty"])
