from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.losses import VICReg, vicreg_loss


def variance(z, j):
    mean = sum(float(row[j]) for row in z) / len(z)
    return sum((float(row[j]) - mean) ** 2 for row in z) / (len(z) - 1)


def covariance(z, j, k):
    means = [sum(float(row[c]) for row in z) / len(z) for c in (j, k)]
    return sum((float(row[j]) - means[0]) * (float(row[k]) - means[1]) for row in z) / (len(z) - 1)


def reference(views, weights=(25.0, 25.0, 1.0), eps=1e-4):
    d, pairs = views[0].shape[1], [(x, y) for i, x in enumerate(views) for y in views[i + 1 :]]
    s = sum(float(((x - y) ** 2).sum()) / (len(x) * d) for x, y in pairs) / len(pairs)
    v = sum(max(0.0, 1 - math.sqrt(variance(z, j) + eps)) for z in views for j in range(d)) / d
    c = sum(covariance(z, j, k) ** 2 for z in views for j in range(d) for k in range(d) if j != k) / d
    return weights[0] * s + 2 / len(views) * (weights[1] * v + weights[2] * c)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(2, 7),
    width=st.integers(1, 5),
    count=st.integers(2, 3),
    spread=st.sampled_from([0.1, 3.0]),
    seed=st.integers(0, 1000),
)
def test_is_the_paper(rows, width, count, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    views = [spread * torch.randn(rows, width, generator=generator, dtype=torch.float64) for _ in range(count)]
    assert float(vicreg_loss(*views)) == pytest.approx(reference(views), rel=1e-9)
    options = {"invariance_weight": 2.0, "variance_weight": 3.0, "covariance_weight": 5.0, "eps": 0.1}
    assert float(VICReg(**options)(*views)) == pytest.approx(reference(views, (2.0, 3.0, 5.0), 0.1), rel=1e-9)


@pytest.mark.parametrize(("rows", "width"), [(7, 3), (3, 7)])
def test_gradcheck(rows, width):
    x, y = (torch.randn(rows, width, dtype=torch.float64).mul(0.5).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(vicreg_loss, (x, y))


def test_shift_does_not_matter():
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    torch.testing.assert_close(vicreg_loss(x + 5, y + 5), vicreg_loss(x, y))


def test_eps_must_be_positive():
    with pytest.raises(ValueError, match="eps must be positive"):
        VICReg(eps=0.0)
    with pytest.raises(ValueError, match="eps must be positive"):
        vicreg_loss(torch.eye(2), torch.eye(2), eps=-1.0)
