"""Matching against copies whose permutation is known, and against assignments tried one by one."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repertoire.backbones import MLP, ConvNet, resnet20
from repertoire.data import Batch
from repertoire.errors import CheckpointError, ConfigError
from repertoire.weights import git_rebasin, loss_barrier, match, permute_units, refresh_batchnorm, uniform_soup, units


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def small(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).eval()


def batches_of(*images: torch.Tensor, classes: int = 2):
    def batches(of=None):
        for x in images:
            yield Batch((x,), torch.arange(len(x)) % classes, torch.arange(len(x)))

    return batches


@pytest.mark.parametrize("data", [False, True])
@pytest.mark.parametrize(
    ("build", "image"),
    [
        (lambda: MLP(1, 8, 24, 3), (1, 8, 8)),
        (lambda: ConvNet(1, 8, 8, 3), (1, 8, 8)),
        (lambda: resnet20(1, 8, width=4), (1, 8, 8)),
    ],
)
def test_a_permuted_copy_is_matched_exactly(build, image, data):
    torch.manual_seed(0)
    net, other = build(), build()
    x = torch.rand(64, *image)
    refresh_batchnorm(net, [x])
    groups = units(net, x[:2])
    shuffled = [torch.randperm(group.size) for group in groups]
    other.load_state_dict(permute_units(net.state_dict(), groups, shuffled))
    found = match(net, other, groups, [x] if data else None)
    for mine, theirs in zip(found.permutations, shuffled, strict=True):
        assert torch.equal(theirs[mine], torch.arange(len(mine)))
    torch.testing.assert_close(found.moved(other.state_dict()), dict(net.state_dict()), rtol=0, atol=0)
    if data:
        for values in found.similarities:
            assert values.max() <= 1 + 1e-9


def test_each_group_is_assigned_as_well_as_it_can_be():
    """No other permutation of one group, all of them tried, adds up to more."""
    first, second = small(0), small(1)
    groups = units(first, torch.zeros(2, 3))
    found = match(first, second, groups)
    theirs = second.state_dict()

    def total(permutations: list[torch.Tensor]) -> float:
        moved = permute_units(theirs, groups, permutations)
        return sum(float((first.state_dict()[name].double() * value.double()).sum()) for name, value in moved.items())

    best = total(list(found.permutations))
    for number in range(len(groups)):
        for order in itertools.permutations(range(4)):
            tried = list(found.permutations)
            tried[number] = torch.tensor(order)
            assert total(tried) <= best + 1e-9
    assert best > total([torch.arange(4)] * 2)


def test_correlations_are_those_of_the_outputs():
    first, second = small(2), small(3)
    x = torch.randn(50, 3)
    groups = units(first, x)
    found = match(first, second, groups, [x[:20], x[20:]])
    for number, layer in enumerate((1, 3)):
        a, b = first[:layer](x).double(), second[:layer](x).double()
        table = torch.corrcoef(torch.cat([a, b], 1).T)[:4, 4:]
        best = max(itertools.permutations(range(4)), key=lambda p: sum(float(table[i, p[i]]) for i in range(4)))
        assert found.permutations[number].tolist() == list(best)
        expected = torch.stack([table[i, j] for i, j in enumerate(best)])
        torch.testing.assert_close(found.similarities[number], expected, rtol=1e-5, atol=1e-6)


def network_of(build):
    def network(state, of=0):
        net = build(0)
        net.load_state_dict(dict(state))
        return net.eval()

    return network


@pytest.mark.parametrize("by", ["weights", "activations"])
def test_rebased_copies_are_the_first(by):
    net = small(0)
    groups = units(net, torch.zeros(2, 3))
    copies = [net.state_dict()]
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        orders = [torch.randperm(group.size, generator=generator) for group in groups]
        copies.append(permute_units(net.state_dict(), groups, orders))
    merged = git_rebasin(copies, network_of(small), batches_of(torch.randn(32, 3)), by=by)
    torch.testing.assert_close(dict(merged), dict(net.state_dict()))
    assert merged.features is None
    assert (uniform_soup(copies)["0.weight"] - net.state_dict()["0.weight"]).abs().max() > 0.01


def test_heads_of_their_own_are_told_where_the_features_went():
    """A permuted copy with another head: with its columns where the features went, it answers as before."""
    first, second = small(0), small(1)
    x = torch.randn(16, 3)
    groups = units(first, x)
    orders = [torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2, 3, 0])]
    body = {n: v for n, v in permute_units(first.state_dict(), groups, orders).items() if not n.startswith("4.")}
    second.load_state_dict({**second.state_dict(), **body})

    def network(state, of=0):
        net = small(of)
        net.load_state_dict({**net.state_dict(), **state})
        return net.eval()

    states = [{name: net.state_dict()[name] for name in body} for net in (first, second)]
    merged = git_rebasin(states, network, batches_of(x))
    torch.testing.assert_close(dict(merged), states[0])
    mine, theirs = merged.features
    assert mine == [0, 1, 2, 3]
    head = {"4.weight": second.state_dict()["4.weight"][:, theirs], "4.bias": second.state_dict()["4.bias"]}
    before = second(x)
    second.load_state_dict({**merged, **head})
    torch.testing.assert_close(second(x), before)


def test_a_barrier_is_the_highest_rise_above_the_line():
    first, second = small(0), small(1)
    x = torch.randn(40, 3)
    states = [net.state_dict() for net in (first, second)]
    found = loss_barrier(network_of(small), states, batches_of(x[:30], x[30:]), points=3)
    targets = torch.cat([torch.arange(30) % 2, torch.arange(10) % 2])
    middle = network_of(small)(uniform_soup(states))
    expected = [float(F.cross_entropy(net(x), targets)) for net in (first, middle, second)]
    assert found.losses == pytest.approx(expected, abs=1e-6)
    assert found.height == pytest.approx(max(0.0, expected[1] - (expected[0] + expected[2]) / 2), abs=1e-6)


def test_batch_statistics_are_measured_between_the_ends():
    def build(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).eval()

    x = torch.randn(64, 3)
    states = [build(seed).state_dict() for seed in (0, 1)]
    found = loss_barrier(network_of(build), states, batches_of(x), points=3)
    middle = network_of(build)(uniform_soup(states))
    refresh_batchnorm(middle, [x])
    assert found.losses[1] == pytest.approx(float(F.cross_entropy(middle(x), torch.arange(64) % 2)), abs=1e-6)


def test_what_does_not_fit_is_refused():
    first, other = small(0), nn.Sequential(nn.Linear(3, 5))
    groups = units(first, torch.zeros(2, 3))
    with pytest.raises(CheckpointError, match="not of one architecture"):
        match(first, other, groups)
    with pytest.raises(ConfigError, match="batches is empty"):
        match(first, small(1), groups, [])
    state = first.state_dict()
    with pytest.raises(ConfigError, match="two states, 1 given"):
        loss_barrier(network_of(small), [state], batches_of(torch.zeros(2, 3)))
    with pytest.raises(ConfigError, match="points must be 3 or more, found 2"):
        loss_barrier(network_of(small), [state, state], batches_of(torch.zeros(2, 3)), points=2)
    with pytest.raises(ConfigError, match="batches is empty"):
        loss_barrier(network_of(small), [state, state], batches_of())
    assert not math.isnan(loss_barrier(network_of(small), [state, state], batches_of(torch.zeros(2, 3))).height)
