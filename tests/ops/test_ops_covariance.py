from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.ops import covariance, cross_square


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(0, 6), width=st.integers(1, 5), correction=st.integers(0, 1), seed=st.integers(0, 1000))
def test_covariance_entry_by_entry(rows, width, correction, seed):
    x = torch.randn(rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    centred, sigma = covariance(x, correction)
    for j in range(width):
        for k in range(width):
            means = [sum(float(x[i, c]) for i in range(rows)) / max(rows, 1) for c in (j, k)]
            total = sum((float(x[i, j]) - means[0]) * (float(x[i, k]) - means[1]) for i in range(rows))
            assert float(sigma[j, k]) == pytest.approx(total / max(rows - correction, 1), abs=1e-12)
    assert centred.shape == x.shape


def test_covariance_of_a_batch_is_that_of_each():
    x = torch.randn(3, 7, 4, dtype=torch.float64)
    _, sigmas = covariance(x)
    for one, sigma in zip(x, sigmas, strict=True):
        torch.testing.assert_close(sigma, torch.cov(one.T))


@pytest.mark.parametrize(("rows", "width", "other"), [(2, 5, 4), (5, 2, 3), (4, 4, 4), (3, 2, 7), (0, 2, 3)])
def test_cross_square_is_the_same_over_features_and_over_rows(rows, width, other):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, width, dtype=torch.float64, generator=generator).requires_grad_()
    y = torch.randn(rows, other, dtype=torch.float64, generator=generator).requires_grad_()
    expected = sum(sum(x[i, j] * y[i, k] for i in range(rows)) ** 2 for j in range(width) for k in range(other))
    torch.testing.assert_close(cross_square(x, y), torch.as_tensor(expected, dtype=torch.float64))
    if rows:
        torch.testing.assert_close(
            torch.autograd.grad(cross_square(x, y), (x, y)), torch.autograd.grad(expected, (x, y))
        )
