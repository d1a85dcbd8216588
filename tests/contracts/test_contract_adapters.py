"""What every registered adapter must do, on a network with layers of many kinds."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from repertoire import registry
from repertoire.adapters import attach, is_adapted, merge, merged_state, plain_state
from repertoire.errors import CheckpointError, ConfigError

NAMES = registry.names("adapters")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(24),
        nn.Conv2d(24, 24, 3, padding=2, dilation=2, groups=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 40),
        nn.GELU(),
        nn.Linear(40, 20, bias=False),
    ).eval()


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def images() -> torch.Tensor:
    return torch.randn(5, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def moved(name: str) -> tuple[nn.Module, object]:
    """A network whose adapter has learned something."""
    net = network()
    adapted = attach(net, name)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net, adapted


def test_there_are_adapters():
    assert NAMES


def test_attaching_changes_no_output_and_freezes_the_network(name: str):
    net = network()
    before = net(images())
    adapted = attach(net, name)
    torch.testing.assert_close(adapted(images()), before, rtol=0, atol=1e-6)
    learn = {id(p) for p in net.parameters() if p.requires_grad}
    assert learn == {id(p) for p in adapted.parameters()}
    assert 0 < adapted.count == sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert adapted.count < sum(p.numel() for p in net.parameters() if not p.requires_grad)


def test_it_learns_and_leaves_the_weights_alone(name: str):
    net = network()
    adapted = attach(net, name)
    frozen = {n: p.clone() for n, p in net.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.SGD(adapted.parameters(), lr=0.5)
    losses = []
    for _ in range(8):
        loss = (adapted(images()) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(torch.equal(dict(net.named_parameters())[n], p) for n, p in frozen.items())


def test_merged_it_is_a_plain_network_that_computes_the_same(name: str):
    net, adapted = moved(name)
    assert not torch.allclose(net(images()), network()(images()), atol=1e-3)
    plain = adapted.merged()
    assert is_adapted(net)
    assert not is_adapted(plain)
    assert [type(m) for m in plain.modules()] == [type(m) for m in network().modules()]
    torch.testing.assert_close(plain(images()), net(images()), rtol=1e-5, atol=1e-5)
    state = merged_state(net)
    assert state.keys() == network().state_dict().keys()
    twin = network()
    twin.load_state_dict(state)
    torch.testing.assert_close(twin(images()), plain(images()), rtol=0, atol=0)
    stored = plain_state({name: value.clone() for name, value in net.state_dict().items()}, name)
    assert stored.keys() == state.keys()
    torch.testing.assert_close(stored, {key: state[key] for key in stored}, rtol=0, atol=0)
    assert plain_state(stored, name) == stored
    assert merge(net) is net
    torch.testing.assert_close(net(images()), plain(images()), rtol=0, atol=0)


def test_its_state_is_its_own_and_complete(name: str):
    net, adapted = moved(name)
    state = adapted.state_dict()
    assert sum(v.numel() for v in state.values()) == adapted.count
    other = attach(network(), name)
    other.load_state_dict(state)
    assert torch.equal(other(images()), net(images()))
    whole = network()
    attach(whole, name)
    whole.load_state_dict(net.state_dict())
    assert torch.equal(whole(images()), net(images()))
    assert torch.equal(copy.deepcopy(net)(images()), net(images()))
    with pytest.raises(CheckpointError, match="Attach the same adapter"):
        other.load_state_dict(dict(list(state.items())[1:]))


def test_it_follows_dtype_and_device(name: str):
    net, _ = moved(name)
    net.double()
    assert net(images().double()).dtype == torch.float64
    net.to("meta")
    assert all(p.is_meta for p in net.parameters())


def test_a_second_adapter_or_none_to_adapt_is_refused(name: str):
    net = network()
    attach(net, name)
    with pytest.raises(ConfigError, match="merge it first"):
        attach(net, name)
    with pytest.raises(ConfigError, match="no layer to adapt in ReLU"):
        attach(nn.ReLU(), name)
