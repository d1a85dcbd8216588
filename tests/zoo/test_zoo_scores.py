"""LEEP and LogME: against loops over the papers' formulas, and against the evidence as a density."""

from __future__ import annotations

import math

import pytest
import torch

from repertoire.errors import ShapeError
from repertoire.zoo import leep, log_me


def test_leep_agrees_with_a_loop():
    theta = torch.rand(11, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(1)
    labels = torch.tensor([0, 2, 5, 5, 0, 2, 2, 0, 5, 0, 2])
    rows, total = theta.tolist(), 0.0
    for row, y in zip(rows, labels.tolist(), strict=True):
        said = 0.0
        for z in range(4):
            joint = sum(other[z] for other, label in zip(rows, labels.tolist(), strict=True) if label == y)
            said += joint / sum(other[z] for other in rows) * row[z]
        total += math.log(said)
    assert leep(theta, labels) == pytest.approx(total / 11, rel=1e-12)


def test_leep_finds_the_network_that_tells_the_classes_apart():
    labels = torch.arange(12) % 3
    told = torch.nn.functional.one_hot(labels, 3).float()
    assert leep(told, labels) == 0
    assert leep(torch.full((12, 3), 1 / 3), labels) == pytest.approx(math.log(1 / 3))


@pytest.mark.parametrize(("count", "width"), [(14, 3), (6, 9)])
def test_log_me_is_the_largest_evidence_there_is(count, width):
    """That is the density of y under a Gaussian with covariance F F' / alpha + I / beta, the largest on a fine grid."""
    generator = torch.Generator().manual_seed(1)
    f = torch.randn(count, width, generator=generator, dtype=torch.float64)
    labels = (f[:, 0] + 0.8 * torch.randn(count, generator=generator, dtype=torch.float64) > 0).long()
    grid = torch.logspace(-2, 3, 40, dtype=torch.float64)
    identity = torch.eye(count, dtype=torch.float64)
    covariance = f @ f.T / grid[:, None, None, None] + identity / grid[None, :, None, None]
    gaussian = torch.distributions.MultivariateNormal(torch.zeros(count, dtype=torch.float64), covariance)
    best = sum(float(gaussian.log_prob((labels == c).double()).max()) for c in (0, 1)) / (2 * count)
    assert log_me(f, labels, steps=500) == pytest.approx(best, abs=0.01)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match=r"labels must be \[3\]"):
        leep(torch.rand(3, 2), torch.tensor([0, 1]))
    with pytest.raises(ShapeError, match="features must be floating point"):
        log_me(torch.zeros(0, 2), torch.zeros(0))
