"""The local interaction basis: what the paper says of it, on small networks."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from repertoire.errors import ConfigError, ShapeError
from repertoire.explain import interaction_edges, local_interaction_basis


def network(widths: list[int], seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.GELU()]
    return nn.Sequential(*layers[:-1]).double()


def jacobian(layer: nn.Module, x: Tensor) -> Tensor:
    return torch.autograd.functional.jacobian(lambda v: layer(v[None])[0], x)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(2, 6), min_size=2, max_size=3), st.integers(8, 20), st.integers(0, 99))
def test_features_are_uncorrelated_ordered_and_scaled_by_importance(widths, count, seed):
    net = network(widths, seed)
    x = torch.randn(count, widths[0], dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    bases = local_interaction_basis(net, x)
    assert len(bases) == len(net) + 1
    f = x
    for number, basis in enumerate(bases):
        features = basis.features(f)
        k = len(basis.importance)
        torch.testing.assert_close(basis.into @ basis.back, torch.eye(k, dtype=torch.float64), atol=1e-6, rtol=0)
        covariance = features.T @ features / count
        torch.testing.assert_close(covariance, basis.importance.diag(), atol=1e-7, rtol=1e-5)
        assert (basis.importance.diff() <= 1e-12).all()
        if number < len(net):
            # The definition, sample by sample: in this basis, the mean of J^T J is diagonal.
            following = bases[number + 1]
            total = torch.zeros(k, k, dtype=torch.float64)
            for row in f:
                moved = following.into @ jacobian(net[number], row) @ basis.back
                total += moved.T @ moved / count
            torch.testing.assert_close(total, torch.eye(k, dtype=torch.float64), atol=1e-5, rtol=1e-5)
            with torch.no_grad():
                f = net[number](f)


def test_edges_against_the_definition(monkeypatch):
    net, x = network([4, 5, 3]), torch.randn(9, 4, dtype=torch.float64)
    bases = local_interaction_basis(net, x)
    for entries in (2**22, 1):
        monkeypatch.setattr("repertoire.explain.circuits._interaction_basis.ENTRIES", entries)
        f = x
        for number, edges in enumerate(interaction_edges(net, bases, x)):
            expected = torch.zeros_like(edges)
            for row in f:
                moved = bases[number + 1].into @ jacobian(net[number], row) @ bases[number].back
                expected += moved.square() / len(f)
            torch.testing.assert_close(edges, expected)
            with torch.no_grad():
                f = net[number](f)


def test_what_nothing_reads_is_dropped_and_all_that_is_read_is_kept():
    net, x = network([6, 4, 3]), torch.randn(40, 6, dtype=torch.float64)
    with torch.no_grad():
        net[0].weight[:, 2] = 0
    bases = local_interaction_basis(net, x)
    assert bases[0].into.shape == (4, 6)  # of six directions only four reach the next layer
    assert bases[0].into[:, 2].abs().max() < 1e-6
    assert local_interaction_basis(net, x, method="pca")[0].into.shape == (6, 6)
    with torch.no_grad():
        torch.testing.assert_close(net(bases[0].kept(x, 4)), net(x), atol=1e-6, rtol=1e-6)
        assert (net(bases[0].kept(x, 3)) - net(x)).abs().max() > 1e-4


def test_a_direction_of_large_variance_that_does_little_comes_last():
    net = nn.Sequential(nn.Linear(3, 2, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0, 1e-3], [0.0, 0.5, 0.0]]))
    x = torch.randn(200, 3, dtype=torch.float64) * torch.tensor([1.0, 1.0, 50.0])
    lib, pca = (local_interaction_basis(net, x, method=name)[0] for name in ("lib", "pca"))
    assert pca.into[0].abs().argmax() == 2
    assert lib.into[0].abs().argmax() == 0


def test_kept_with_all_directions_is_everything():
    net, x = network([5, 7, 3]), torch.randn(30, 5, dtype=torch.float64)
    pca = local_interaction_basis(net, x, tolerance=0.0, method="pca")[0]
    torch.testing.assert_close(pca.kept(x, 5), x)
    torch.testing.assert_close(pca.kept(x, 0), x.mean(0).expand(30, 5))


def test_leaves_the_network_alone_and_takes_batch_normalisation():
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    bases = local_interaction_basis(net, torch.randn(20, 4))
    assert len(interaction_edges(net, bases, torch.randn(20, 4))) == 5
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(module.training for module in net.modules())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_bad_input():
    net, x = network([4, 3]), torch.randn(9, 4, dtype=torch.float64)
    with pytest.raises(ShapeError, match="inputs must be"):
        local_interaction_basis(net, x[:1])
    with pytest.raises(ShapeError, match="output of layer 0"):
        local_interaction_basis(nn.Sequential(nn.Unflatten(1, (2, 2))), x)
    with pytest.raises(ConfigError, match="method must be"):
        local_interaction_basis(net, x, method="ica")
    with pytest.raises(ConfigError, match="tolerance must lie"):
        local_interaction_basis(net, x, tolerance=1.0)
    with pytest.raises(ConfigError, match="layers is empty"):
        local_interaction_basis(nn.Sequential(), x)
    with pytest.raises(ShapeError, match="have 2 bases"):
        interaction_edges(net, [], x)
