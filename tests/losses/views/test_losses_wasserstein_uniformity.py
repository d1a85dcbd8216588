from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.diagnostics import uniformity, wasserstein_uniformity
from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import (
    AlignUniform,
    WassersteinUniformity,
    alignment_loss,
    wasserstein_uniformity_loss,
)


def reference(x):
    z = torch.stack([row / row.norm() for row in x.double()])
    mean = z.mean(0)
    sigma = sum(torch.outer(row - mean, row - mean) for row in z) / len(z)
    values, vectors = torch.linalg.eigh(sigma)
    root = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
    width = x.shape[1]
    square = mean @ mean + torch.trace(sigma + torch.eye(width) / width - 2 * root / math.sqrt(width))
    return math.sqrt(max(float(square), 0.0))


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 9), width=st.integers(1, 6), shift=st.sampled_from([0.0, 2.0]), seed=st.integers(0, 1000))
def test_is_the_paper(rows, width, shift, seed):
    x = torch.randn(rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + shift
    assert float(wasserstein_uniformity_loss(x)) == pytest.approx(reference(x), abs=1e-6)
    assert wasserstein_uniformity(x) == pytest.approx(reference(x), abs=1e-6)


@pytest.mark.parametrize(("rows", "width"), [(9, 3), (4, 7)])
def test_gradcheck(rows, width):
    x = torch.randn(rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(wasserstein_uniformity_loss, (x,))


def test_dimensions_that_are_not_used_do_not_make_the_gradient_infinite():
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    x[:, 4:] = 0.0
    x.requires_grad_()
    wasserstein_uniformity_loss(x).backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().max() < 1


def test_what_the_paper_asks_of_a_uniformity_metric():
    x = torch.randn(60, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value = wasserstein_uniformity(x)
    turn = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q
    lengths = torch.rand(60, 1, dtype=torch.float64) + 0.5
    assert wasserstein_uniformity(x[torch.randperm(60)]) == pytest.approx(value)
    assert wasserstein_uniformity(x[:, torch.randperm(8)]) == pytest.approx(value)
    assert wasserstein_uniformity(x @ turn) == pytest.approx(value)
    assert wasserstein_uniformity(x * lengths) == pytest.approx(value)
    assert wasserstein_uniformity(torch.cat([x, x])) == pytest.approx(value)  # cloned instances
    assert wasserstein_uniformity(torch.cat([x, x], 1)) > value + 0.1  # cloned features
    assert wasserstein_uniformity(torch.cat([x, torch.zeros(60, 8)], 1)) > value + 0.1  # features that say nothing


def test_sees_the_collapse_that_the_usual_metric_misses():
    x = torch.randn(2000, 256, generator=torch.Generator().manual_seed(0))
    half = torch.cat([x[:, :128], torch.zeros(2000, 128)], 1)
    assert uniformity(half) - uniformity(x) < 0.05
    assert wasserstein_uniformity(half) - wasserstein_uniformity(x) > 0.5


def test_is_added_to_another_loss():
    x, y = torch.randn(2, 8, 4, dtype=torch.float64)
    term = (wasserstein_uniformity_loss(x) + wasserstein_uniformity_loss(y)) / 2
    torch.testing.assert_close(WassersteinUniformity(weight=0.5)(x, y), alignment_loss(x, y) + 0.5 * term)
    base = AlignUniform()
    torch.testing.assert_close(WassersteinUniformity(base, weight=0.2)(x, y), base(x, y) + 0.2 * term)


def test_wrong_arguments():
    with pytest.raises(ConfigError, match="base must be a loss on views, found 'focal', which is one on logits"):
        WassersteinUniformity("focal")
    with pytest.raises(ShapeError, match="rows must be a floating point"):
        wasserstein_uniformity_loss(torch.zeros(3))
    assert math.isnan(wasserstein_uniformity(torch.zeros(0, 3)))
