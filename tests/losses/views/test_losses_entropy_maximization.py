from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import EntropyMaximization, VICReg, entropy_maximization_loss


def squash(x, space):
    if space == "cube":
        return [[1 / (1 + math.exp(-float(v))) for v in row] for row in x]
    width = x.shape[1]
    return [[0.5 * (1 + math.erf(float(v) / float(row.norm()) * math.sqrt(width / 2))) for v in row] for row in x]


def reference(x, weight, space):
    u, n, d = squash(x, space), len(x), x.shape[1]
    m = round(math.sqrt(n))
    entropies, total = [], 0.0
    for j in range(d):
        ordered = sorted(row[j] for row in u)
        entropies.append(
            sum(math.log((n + 1) / m * (ordered[i + m] - ordered[i]) + 1e-7) for i in range(n - m)) / (n - m)
        )
    means = [sum(row[j] for row in u) / n for j in range(d)]
    for j in range(d):
        for k in range(d):
            if j != k:
                total += (sum((row[j] - means[j]) * (row[k] - means[k]) for row in u) / (n - 1)) ** 2
    return -sum(entropies) / d + weight * total / d


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(2, 12),
    width=st.integers(1, 5),
    space=st.sampled_from(["cube", "sphere"]),
    weight=st.sampled_from([0.0, 7.0]),
    seed=st.integers(0, 1000),
)
def test_is_the_paper(rows, width, space, weight, seed):
    x = 2 * torch.randn(rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    loss = entropy_maximization_loss(x, covariance_weight=weight, space=space)
    assert float(loss) == pytest.approx(reference(x, weight, space), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("space", ["cube", "sphere"])
def test_gradcheck(space):
    x = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: entropy_maximization_loss(x, space=space), (x,))


def test_the_entropy_of_an_even_spread_is_the_largest():
    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    even = torch.rand(400, 3, generator=torch.Generator().manual_seed(0)).logit()
    losses = [float(entropy_maximization_loss(values)) for values in (even, x, 0.1 * x, 0 * x)]
    assert losses == sorted(losses)
    assert losses[0] == pytest.approx(0.0, abs=0.1)


def test_minimising_it_makes_features_uniform_and_uncorrelated():
    x = 0.3 * torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
    x[:, 1] += x[:, 0]
    x.requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        entropy_maximization_loss(x, covariance_weight=100.0).backward()
        optimizer.step()
    u = torch.sigmoid(x.detach())
    assert u.std(0).sub(math.sqrt(1 / 12)).abs().max() < 0.02  # the deviation of the uniform distribution
    assert torch.corrcoef(u.T)[0, 1].abs() < 0.05


def test_is_added_to_another_loss():
    x, y = torch.randn(2, 8, 4, dtype=torch.float64)
    term = (entropy_maximization_loss(x) + entropy_maximization_loss(y)) / 2
    torch.testing.assert_close(EntropyMaximization(weight=0.3)(x, y), VICReg()(x, y) + 0.3 * term)


def test_wrong_arguments():
    with pytest.raises(ConfigError, match="space must be 'cube' or 'sphere'"):
        EntropyMaximization(space="ball")
    with pytest.raises(ValueError, match="covariance_weight must be 0 or more"):
        entropy_maximization_loss(torch.eye(2), covariance_weight=-1.0)
    with pytest.raises(ShapeError, match="embeddings must be a floating point"):
        entropy_maximization_loss(torch.zeros(3))
