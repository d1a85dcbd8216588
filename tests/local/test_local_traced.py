"""Cutting networks that were not written for it."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError
from repertoire.local import LocalLearning, chain_of


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv2(F.relu(self.norm(self.conv1(x)))))


class Handwritten(nn.Module):
    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.act = nn.ReLU()
        self.first = Residual(8)
        self.second = Residual(8)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        x = self.second(self.act(self.first(x)))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.fc(self.drop(x))


class Skips(nn.Module):
    """A long skip from the first layer to the last but one: the middle cannot be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))
        self.e = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        kept = self.a(x)
        y = F.relu(self.c(F.relu(self.b(kept))))
        return self.e(torch.cat([kept, self.d(y)], 1))


def sgd(block: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(block.parameters(), lr=0.05)


def test_units_compose_to_the_network_and_follow_its_mode():
    net = Handwritten(dropout=0.5)
    x = torch.randn(2, 3, 8, 8)
    chain = chain_of(net, x)
    assert [unit.name for unit in chain.units] == ["stem", "first", "second", "fc"]
    assert [unit.shape for unit in chain.units] == [(8, 8, 8), (8, 8, 8), (8,), (5,)]
    assert net.training
    images = torch.randn(5, 3, 8, 8)
    for training in (True, False):
        net.train(training)
        torch.manual_seed(1)
        y = images
        for unit in chain.units:
            y = unit.module(y)
        torch.manual_seed(1)
        torch.testing.assert_close(y, net(images))


def test_tracing_changes_no_statistic():
    net = Handwritten()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    chain_of(net, torch.randn(2, 3, 8, 8))
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


class PreActivation(nn.Module):
    """Overwrites its own input, which is what the unit before gave out."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=inplace)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.act(x))


def test_an_activation_in_place_after_a_cut_changes_nothing():
    x, y = torch.randn(8, 4), torch.arange(8) % 4
    weights = []
    for inplace in (False, True):
        torch.manual_seed(2)
        net = nn.Sequential(nn.Linear(4, 4), *(PreActivation(inplace) for _ in range(3)))
        learner = LocalLearning(net, "all", "linear", sgd, example=x)
        for _ in range(3):
            learner.step(x.clone(), y)
        weights.append(list(net.parameters()))
        if inplace:
            assert torch.equal(learner.exits(x)[-1], net(x))
    for a, b in zip(*weights, strict=True):
        assert torch.equal(a, b)


def test_long_skips_leave_few_places():
    chain = chain_of(Skips(), torch.randn(2, 4))
    assert [unit.name for unit in chain.units] == ["a", "d", "e"]
    learner = LocalLearning(Skips(), 2, "linear", sgd, example=torch.randn(2, 4))
    logs = learner.step(torch.randn(6, 4), torch.arange(6) % 3)
    assert torch.isfinite(logs["block1_loss"])


def test_one_wrapper_is_looked_into():
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Handwritten()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    chain = chain_of(Wrapped(), torch.randn(2, 3, 8, 8))
    assert len(chain.units) >= 3
    assert all(unit.name.startswith("net.") for unit in chain.units)


class Parallel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x)


class DataDependent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(y if bool(y.sum() > 0) else -y)


class FunctionalDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.dropout(self.a(x), 0.5, self.training))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.a(x)
        return y, self.b(y)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Parallel, "Parallel cannot be cut into blocks: there is no point between its modules where a single tensor"),
        (DataDependent, "DataDependent cannot be cut into blocks: its forward pass cannot be traced"),
        (FunctionalDropout, r"calls dropout outside of a module.*nn\.Dropout"),
        (Pair, "Pair cannot be cut into blocks: its features are not one tensor"),
    ],
)
def test_what_cannot_be_cut_says_why(network, message):
    with pytest.raises(ConfigError, match=message):
        chain_of(network(), torch.randn(2, 4))


@pytest.mark.parametrize(("name", "size"), [("resnet18", 64), ("vit_tiny_patch16_224", 64), ("convnext_atto", 64)])
def test_whole_networks_of_timm(name, size):
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    from repertoire.backbones import import_timm

    timm = import_timm(name)
    options = {"img_size": size} if name.startswith("vit") else {}
    net = timm.create_model(name, num_classes=4, **options)
    x = torch.randn(4, 3, size, size)
    learner = LocalLearning(net, 3, "conv", sgd, example=x)
    assert len(learner.partition) == 3
    before = [p.detach().clone() for p in net.parameters()]
    learner.step(x, torch.arange(4))  # the first step of a residual network may only open its branches
    logs = learner.step(x, torch.arange(4))
    assert torch.isfinite(logs["loss"])
    moved = sum(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert moved > 0.9 * len(before)
