"""Directions against the eigenvectors of Hessians by autograd, and projected gradients against closed forms."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError
from repertoire.ops import adversarial_direction, largest_entries, projected_gradient, unit_changes


def perceptron(inputs: int = 4, classes: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, classes))
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network.double()


def hessian(network: nn.Module, x: Tensor) -> Tensor:
    """Of KL(p(x) || p(x + r)) at r = 0, for one input."""
    p = network(x[None]).softmax(1).detach()

    def divergence(r: Tensor) -> Tensor:
        return (p * (p.log() - network((x + r)[None]).log_softmax(1))).sum()

    return torch.autograd.functional.hessian(divergence, torch.zeros_like(x))


def test_of_two_classes_of_a_linear_model_it_is_the_difference_of_their_weights():
    torch.manual_seed(0)
    weight = torch.randn(2, 30, dtype=torch.float64)
    x = 0.1 * torch.randn(7, 30, dtype=torch.float64)
    found = adversarial_direction(lambda z: z @ weight.T, x, steps=3)
    exact = F.normalize(weight[0] - weight[1], dim=0)
    assert (found @ exact).abs().min() > 0.999


@pytest.mark.parametrize("xi", [None, 1e-6])
def test_power_steps_lead_to_the_first_eigenvector_of_each_sample(xi: float | None):
    network, x = perceptron(), torch.randn(5, 4, dtype=torch.float64)
    found = adversarial_direction(network, x, steps=60, xi=xi)
    for direction, one in zip(found, x, strict=True):
        values, vectors = torch.linalg.eigh(hessian(network, one))
        assert (direction @ vectors[:, -1]).abs() > 0.999, values


def test_a_single_step_is_the_product_with_the_hessian():
    network, x = perceptron(), torch.randn(5, 4, dtype=torch.float64)
    start = unit_changes(torch.randn(5, 4, dtype=torch.float64))
    found = adversarial_direction(network, x, start=start)
    expected = torch.stack([F.normalize(hessian(network, one) @ d, dim=0) for one, d in zip(x, start, strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_in_float32_the_step_has_to_be_longer_than_the_papers():
    """A step of 1e-6 over the pixels of an image is lost in rounding, and the direction with it."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10)).double()
    nn.init.normal_(network[3].weight)
    x, start = torch.randn(32, 1, 28, 28, dtype=torch.float64), torch.randn(32, 1, 28, 28, dtype=torch.float64)
    start = unit_changes(start)
    exact = adversarial_direction(network, x, start=start, xi=1e-6)
    rough = copy.deepcopy(network).float()

    def agreement(xi: float | None) -> Tensor:
        found = adversarial_direction(rough, x.float(), start=start.float(), xi=xi)
        return (found.double() * exact).flatten(1).sum(1)

    assert agreement(None).mean() > 0.99
    assert agreement(1e-6).mean() < 0.5


def test_mixed_precision_does_not_reach_the_difference():
    network, x = perceptron(20).float(), torch.randn(6, 20)
    start = unit_changes(torch.randn(6, 20))
    plain = adversarial_direction(network, x, start=start)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(adversarial_direction(network, x, start=start), plain)


def test_directions_have_length_one_and_begin_at_random():
    network, x = perceptron(), torch.randn(5, 4, dtype=torch.float64)
    for steps in (0, 1, 4):
        found = adversarial_direction(network, x, steps=steps)
        torch.testing.assert_close(found.norm(dim=1), torch.ones(5, dtype=torch.float64))
        assert not found.requires_grad
    torch.manual_seed(1)
    first = adversarial_direction(network, x, steps=0)
    torch.manual_seed(1)
    torch.testing.assert_close(first, F.normalize(torch.randn(5, 4).double()))
    # Of its own length, not of the batch's.
    assert not torch.allclose(first[0], first[1])
    with torch.no_grad():
        assert adversarial_direction(network, x).isfinite().all()


def test_corners_of_directions():
    x = torch.randn(3, 4)
    assert not adversarial_direction(lambda z: z[:, :2] * 0, x).any()
    assert adversarial_direction(perceptron().float(), x[:0]).shape == (0, 4)
    with pytest.raises(ShapeError, match="floating point"):
        adversarial_direction(perceptron(), x.long())
    with pytest.raises(ConfigError, match="xi must be positive"):
        adversarial_direction(perceptron(), x, xi=0.0)


def test_of_a_linear_model_one_step_is_the_sign_step():
    torch.manual_seed(0)
    weight = torch.randn(3, 6, dtype=torch.float64)
    x, y = torch.rand(5, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])

    def objective(z: Tensor) -> Tensor:
        return F.cross_entropy(z @ weight.T, y, reduction="sum")

    p = (x @ weight.T).softmax(1)
    gradient = (p - F.one_hot(y, 3)) @ weight
    found = projected_gradient(objective, x, epsilon=0.1, step_size=0.1, steps=1)
    torch.testing.assert_close(found, (x + 0.1 * gradient.sign()).clamp(0, 1))
    assert objective(found) > objective(x)
    down = projected_gradient(objective, x, epsilon=0.1, step_size=0.1, steps=1, descend=True)
    torch.testing.assert_close(down, (x - 0.1 * gradient.sign()).clamp(0, 1))


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_it_stays_in_the_cube_and_within_the_bounds(share: float):
    network = perceptron(12).float()
    x, y = torch.rand(9, 12), torch.arange(9) % 3
    start = x + torch.empty_like(x).uniform_(-1, 1)
    found = projected_gradient(
        lambda z: F.cross_entropy(network(z), y, reduction="sum"),
        x,
        epsilon=0.07,
        step_size=0.05,
        steps=15,
        start=start,
        share=share,
    )
    assert float((found - x).abs().max()) <= 0.07 + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1
    changed = (found != x).sum(1)
    assert changed.max() <= (12 if share == 1 else 4)
    assert changed.min() >= 1
    assert all(p.grad is None for p in network.parameters())


def test_more_steps_find_more_and_no_radius_changes_nothing():
    network = perceptron(12).float()
    x, y = torch.rand(9, 12), torch.arange(9) % 3

    def objective(z: Tensor) -> Tensor:
        return F.cross_entropy(network(z), y, reduction="sum")

    values = [
        float(objective(projected_gradient(objective, x, epsilon=e, step_size=max(e, 1e-3) / 4, steps=20)).detach())
        for e in (0.0, 0.01, 0.05, 0.2)
    ]
    assert values == sorted(values)
    assert values[0] == float(objective(x))
    assert torch.equal(projected_gradient(objective, x, epsilon=0.0, step_size=0.1), x)


def test_what_lies_outside_of_the_bounds_stays():
    x = torch.tensor([[-0.5, 0.5, 1.5]])
    found = projected_gradient(lambda z: z.sum(), x, epsilon=0.1, step_size=0.1, steps=3)
    torch.testing.assert_close(found, torch.tensor([[-0.4, 0.6, 1.5]]))


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.01, 1), (0.3, 3), (0.7, 7), (0.71, 8), (1.0, 10)])
def test_so_many_entries_are_the_largest(share: float, count: int):
    values = torch.rand(4, 2, 5)
    found = largest_entries(values, share)
    assert found.flatten(1).sum(1).tolist() == [count] * 4
    if 0 < count < 10:
        inside, outside = values.masked_fill(~found, 2.0), values.masked_fill(found, -1.0)
        assert (inside.flatten(1).amin(1) > outside.flatten(1).amax(1)).all()
    assert largest_entries(torch.ones(1, 10), share).flatten().tolist() == [i < count for i in range(10)]
