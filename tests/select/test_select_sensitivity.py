from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from repertoire.errors import ConfigError, ShapeError
from repertoire.select import sensitivity_sample


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_weighted_sample_estimates_the_mean_loss_without_bias():
    x = normal(400, 3)
    losses = x.square().sum(1).double()
    generator = torch.Generator().manual_seed(0)
    estimates = []
    for _ in range(200):
        found = sensitivity_sample(x, lambda index: losses[index], 30, clusters=10, generator=generator)
        estimates.append(float((found.weight * losses[found.index]).sum()))
    mean, error = np.mean(estimates), np.std(estimates) / math.sqrt(200)
    assert abs(mean - float(losses.mean())) < 4 * error
    assert len(found.asked) == 10


@pytest.mark.parametrize(
    ("loss", "options", "error"),
    [
        (lambda i: -torch.ones(len(i)), {}, ConfigError),
        (lambda i: torch.ones(2), {}, ShapeError),
        (lambda i: torch.ones(len(i)), {"size": 0}, ConfigError),
        (lambda i: torch.ones(len(i)), {"power": 0.0}, ConfigError),
    ],
)
def test_bad_sensitivity(loss, options, error):
    with pytest.raises(error):
        sensitivity_sample(normal(20, 2), loss, **{"size": 5, "clusters": 3, **options})


def test_equal_samples_without_loss_are_drawn_evenly():
    found = sensitivity_sample(torch.zeros(10, 2), lambda index: torch.zeros(len(index)), 5, clusters=2)
    assert found.weight.tolist() == pytest.approx([0.2] * 5)
