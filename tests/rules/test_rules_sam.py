from __future__ import annotations

import pytest
import torch
from test_rules_backprop import Quadratic, batch_of, gradient, sgd
from torch import nn

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.methods import Method, Needs, Step
from repertoire.rules import SAM


def with_weight(method: Quadratic, weight: torch.Tensor) -> Quadratic:
    copied = Quadratic()
    copied.layer.weight.data[0] = weight
    return copied


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("pieces", [1, 3])
def test_a_step_uses_the_gradient_at_the_worst_point_of_the_ball(adaptive: bool, pieces: int):
    method, batch, rho = Quadratic(), batch_of(9), 0.3
    weight = method.layer.weight[0].detach().clone()
    g = gradient(method, batch)
    if adaptive:
        climb = rho * weight**2 * g / (weight * g).norm()
    else:
        climb = rho * g / g.norm()
    expected = weight - 0.1 * gradient(with_weight(method, weight + climb), batch)
    rule = SAM(rho=rho, adaptive=adaptive)
    rule.setup(method, sgd, accumulate=pieces)
    rule.step(method, batch)
    torch.testing.assert_close(method.layer.weight[0].detach(), expected)


def test_a_zero_gradient_stays_where_it_is():
    method = Quadratic()
    batch = Batch((torch.zeros(4, 3, 1, 1),), torch.zeros(4, dtype=torch.long), torch.arange(4))
    weight = method.layer.weight.detach().clone()
    rule = SAM()
    rule.setup(method, sgd)
    rule.step(method, batch)
    assert torch.equal(method.layer.weight, weight)


class Noisy(Method):
    """Batch normalisation and dropout, and a record of what each pass saw."""

    needs = Needs(step="whole")

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(4), nn.Linear(4, 1)
        self.masks: list[torch.Tensor] = []

    def step(self, batch: Batch) -> Step:
        mask = torch.rand(4)
        self.masks.append(mask)
        loss = self.layer(self.norm(batch.images.flatten(1)) * mask).square().mean()
        return Step(loss, {"loss": loss.detach()})


def test_statistics_follow_the_first_pass_only_and_masks_repeat():
    torch.manual_seed(0)
    method, images = Noisy(), torch.randn(16, 4, 1, 1)
    rule = SAM(rho=0.5)
    rule.setup(method, sgd)
    rule.step(method, Batch((images,), torch.zeros(16, dtype=torch.long), torch.arange(16)))
    torch.testing.assert_close(method.norm.running_mean, 0.1 * images.flatten(1).mean(0))
    assert method.norm.num_batches_tracked == 1
    assert method.norm.momentum == 0.1
    assert torch.equal(method.masks[0], method.masks[1])


@pytest.mark.parametrize("rho", [0.0, -1.0, float("nan")])
def test_the_radius_must_be_positive(rho: float):
    with pytest.raises(ConfigError, match="rho"):
        SAM(rho=rho)
