from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from repertoire.methods import Method
from repertoire.recipe import WeightAverage, learning_rate, make_config, make_optimizer, schedule


def test_learning_rates_follow_the_batch():
    assert learning_rate(make_config(data="d", batch_size=256)) == pytest.approx(0.2)
    assert learning_rate(make_config(data="d", batch_size=512, optimizer="adamw")) == pytest.approx(0.002)
    assert learning_rate(make_config(data="d", lr=0.7, batch_size=512)) == 0.7


def test_a_head_learns_faster_than_a_network_that_learns_further():
    def rate(**fields: object) -> float:
        return learning_rate(make_config(data="d", optimizer="adamw", batch_size=32, backbone="lite0", **fields))

    assert rate(tune="head") == pytest.approx(0.005)
    assert rate(tune="all") == rate(tune="auto") == rate(tune="last:2") == pytest.approx(0.00025)


def test_biases_and_norms_are_not_decayed():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimizer = make_optimizer(make_config(data="d"), module)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decays) == len(list(module.parameters()))
    assert decays[id(module[0].weight)] == 5e-4
    assert decays[id(module[0].bias)] == decays[id(module[1].weight)] == 0


def test_warm_up_then_a_half_cosine_to_zero():
    config = make_config(data="d", epochs=10, warmup=2)
    shares = [schedule(config, step, 10) for step in range(100)]
    assert shares[:20] == pytest.approx([(step + 1) / 21 for step in range(20)])
    assert shares[20] == 1
    assert shares[60] == pytest.approx(0.5)
    assert all(a > b for a, b in pairwise(shares[20:]))
    assert 0 < shares[-1] < 0.001


def test_warm_up_takes_at_most_a_fifth_of_a_short_run():
    config = make_config(data="d", epochs=1, warmup=5)
    assert schedule(config, 2, 10) == 1


def test_constant_stays():
    config = make_config(data="d", epochs=10, warmup=0, schedule="constant")
    assert {schedule(config, step, 10) for step in range(100)} == {1.0}


def test_the_average_follows_its_formula():
    class Small(Method):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))
            self.register_buffer("count", torch.tensor(0))

    method = Small()
    average = WeightAverage(method, 0.5)
    expected = 0.0
    for step in range(30):
        with torch.no_grad():
            method.w.fill_(step)
        method.count += 1
        average.update(method, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert average.method.w.item() == pytest.approx(expected, rel=1e-5)
    assert average.method.count == 30
    assert not average.method.w.requires_grad
