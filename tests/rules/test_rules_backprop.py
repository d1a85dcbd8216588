from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from repertoire.data import Batch
from repertoire.methods import Method, Needs, Step
from repertoire.rules import Backprop


class Quadratic(Method):
    """A linear model with a squared error, whose gradient can be written down."""

    needs = Needs(step="whole")

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1, bias=False).double()
        self.updates = 0

    def step(self, batch: Batch) -> Step:
        loss = (self.layer(batch.images.flatten(1).double()).squeeze(1) - batch.targets.double()).square().mean()
        return Step(loss, {"loss": loss.detach()})

    def after_update(self) -> None:
        self.updates += 1


def batch_of(count: int, width: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(count)
    images = torch.randn(count, width, 1, 1, generator=generator)
    return Batch((images,), torch.randint(0, 3, (count,), generator=generator), torch.arange(count))


def sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.1)


def gradient(method: Quadratic, batch: Batch) -> torch.Tensor:
    """Gradient of the mean squared error, from its formula."""
    x = batch.images.flatten(1).double()
    error = x @ method.layer.weight[0].detach() - batch.targets.double()
    return 2 * (error[:, None] * x).mean(0)


def test_a_step_is_gradient_descent_and_leaves_no_gradient():
    method, batch = Quadratic(), batch_of(8)
    rule = Backprop()
    rule.setup(method, sgd)
    expected = method.layer.weight[0].detach() - 0.1 * gradient(method, batch)
    logs = rule.step(method, batch)
    torch.testing.assert_close(method.layer.weight[0].detach(), expected)
    assert method.layer.weight.grad is None
    assert method.updates == 1
    assert not logs["loss"].requires_grad


@pytest.mark.parametrize("pieces", [2, 3, 7, 8, 20])
def test_accumulation_gives_the_gradient_of_the_whole_batch(pieces: int):
    whole, batch = Quadratic(), batch_of(8)
    parts = copy.deepcopy(whole)
    rules = Backprop(), Backprop()
    rules[0].setup(whole, sgd)
    rules[1].setup(parts, sgd, accumulate=pieces)
    logs = [rules[0].step(whole, batch), rules[1].step(parts, batch)]
    torch.testing.assert_close(whole.layer.weight, parts.layer.weight)
    torch.testing.assert_close(logs[0]["loss"], logs[1]["loss"])


def test_clipping_bounds_the_step():
    method, batch = Quadratic(), batch_of(8)
    before = method.layer.weight.detach().clone()
    direction = gradient(method, batch)
    rule = Backprop()
    rule.setup(method, sgd, clip=0.01)
    rule.step(method, batch)
    moved = (before - method.layer.weight.detach())[0]
    torch.testing.assert_close(moved, 0.1 * 0.01 * direction / direction.norm(), rtol=1e-4, atol=1e-9)


def test_state_goes_through_state_dict():
    def momentum(module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)

    first, batch = Quadratic(), batch_of(8)
    rule = Backprop()
    rule.setup(first, momentum)
    rule.step(first, batch)
    second = copy.deepcopy(first)
    other = Backprop()
    other.setup(second, momentum)
    other.load_state_dict(copy.deepcopy(rule.state_dict()))
    rule.step(first, batch)
    other.step(second, batch)
    assert torch.equal(first.layer.weight, second.layer.weight)
