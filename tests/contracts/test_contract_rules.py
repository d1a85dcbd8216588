"""What holds for every learning rule: weights change, gradients do not stay, and the state comes back."""

from __future__ import annotations

import copy

import pytest
import torch

from repertoire import backbones, heads, losses, registry
from repertoire.data import Batch
from repertoire.methods import Classifier, Method, Normalize, Supervised
from repertoire.rules import Rule


def make_method() -> Method:
    torch.manual_seed(0)
    net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 3))
    return Supervised(model, losses.CrossEntropy())


def make_batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(12, 1, 8, 8, generator=generator)
    return Batch((images,), torch.arange(12) % 3, torch.arange(12))


#: Options for a network of three units.
SPECS = {"local": "local:blocks=2"}


@pytest.fixture(params=registry.names("rules"))
def rule(request: pytest.FixtureRequest) -> Rule:
    return registry.build("rules", SPECS.get(request.param, request.param))


def fresh(rule: Rule) -> Rule:
    name = next(entry.name for entry in registry.entries("rules") if entry.factory is type(rule))
    return registry.build("rules", SPECS.get(name, name))


def set_up(rule: Rule, method: Method, **options: object) -> Rule:
    example = torch.zeros(2, 1, 8, 8)
    rule.setup(method, lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9), example=example, **options)
    return rule


def test_steps_lower_the_loss_and_leave_no_gradient(rule: Rule):
    method, batch = make_method(), make_batch()
    set_up(rule, method)
    values = [float(rule.step(method, batch)["loss"]) for _ in range(60)]
    assert values[-1] < 0.7 * values[0]
    assert all(p.grad is None for p in method.parameters())
    assert method.training


def test_the_state_is_complete_between_any_two_steps(rule: Rule):
    method, batch = make_method(), make_batch()
    set_up(rule, method)
    rule.step(method, batch)
    other_method = make_method()
    other = set_up(fresh(rule), other_method)
    other_method.load_state_dict(copy.deepcopy(method.state_dict()))
    other.load_state_dict(copy.deepcopy(rule.state_dict()))
    for _ in range(2):
        rule.step(method, batch)
        other.step(other_method, batch)
    for a, b in zip(method.state_dict().values(), other_method.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_learning_rate_of_zero_changes_no_parameter(rule: Rule):
    method, batch = make_method(), make_batch()
    set_up(rule, method)
    before = [p.detach().clone() for p in method.parameters()]
    for optimizer in rule.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = 0.0
    rule.step(method, batch)
    assert all(torch.equal(a, b) for a, b in zip(before, method.parameters(), strict=True))


def test_accumulation_and_clipping_are_taken(rule: Rule):
    method = make_method()
    set_up(rule, method, accumulate=3, clip=1e-6)
    before = [p.detach().clone() for p in method.parameters()]
    rule.step(method, make_batch())
    moved = torch.stack([(a - b).norm() for a, b in zip(before, method.parameters(), strict=True)]).norm()
    assert 0 < moved < 1e-6
