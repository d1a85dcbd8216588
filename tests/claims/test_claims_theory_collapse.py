"""What is compared with the theorem on imbalanced classes, and with the bound on the change of a loss."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repertoire.claims import Budget
from repertoire.claims.diagnostics import hessian_landscape
from repertoire.claims.theory import neural_collapse_linear as claims


def test_orthogonal_means_of_the_right_lengths_are_at_no_distance():
    labels = torch.tensor([0, 0, 1])
    features = torch.tensor([[1.0, 0.5], [1.0, -0.5], [0.0, 2.0]])
    assert claims.distance(features, labels, torch.tensor([1.0, 4.0])) == pytest.approx(0, abs=1e-6)
    # Gram diag(1, 4) / sqrt(17) against the identity / sqrt(2).
    expected = ((1 / 17**0.5 - 0.5**0.5) ** 2 + (4 / 17**0.5 - 0.5**0.5) ** 2) ** 0.5
    assert claims.distance(features, labels, torch.ones(2)) == pytest.approx(expected)


def test_descent_finds_the_frame_that_sizes_and_decay_predict():
    found = claims.free_features(Budget("small"), 0)
    assert found.method < 1e-3
    assert found.extra["lengths by size alone"] > 10 * found.method
    assert found.extra["equal lengths"] > found.extra["lengths by size alone"]


def test_changes_are_those_of_the_mean_loss_and_bounds_grow_with_distance():
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    x, y, u, v = torch.randn(6, 3), torch.arange(6) % 2, torch.randn(2, 3), torch.tensor([0, 1])
    changes, bounds = hessian_landscape.changes_and_bounds(network, (x, y), (u, v), points=2, seed=0)
    generator = torch.Generator().manual_seed(0)
    step = {n: 3e-4 * torch.randn(p.shape, generator=generator) for n, p in network.named_parameters()}
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter += step[name]
        alone = F.cross_entropy(network(x), y)
        more = F.cross_entropy(network(torch.cat([x, u[:1]])), torch.cat([y, v[:1]]))
    assert float(changes[0, 0, 0]) == pytest.approx(float((more - alone).abs()), rel=1e-3)
    assert (bounds[:, 2] > bounds[:, 0]).all()
