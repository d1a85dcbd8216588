from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.diagnostics import uniformity


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 12), t=st.sampled_from([0.5, 2.0, 40.0]), seed=st.integers(0, 1000))
def test_pairs_one_by_one(n, t, seed):
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    z = x / x.norm(dim=1, keepdim=True)
    terms = [math.exp(-t * float(((z[i] - z[j]) ** 2).sum())) for i in range(n) for j in range(n) if i != j]
    assert uniformity(x, t=t) == pytest.approx(math.log(sum(terms) / len(terms)), abs=1e-9)


def test_even_features_are_lower_than_collapsed_ones():
    x = torch.randn(700, 32, generator=torch.Generator().manual_seed(0))
    even, collapsed = uniformity(x), uniformity(x + 10)
    assert even < -3.5 < -0.5 < collapsed <= 0
    assert even == pytest.approx(uniformity(x.double()), abs=1e-5)


def test_fewer_than_two_rows_is_nan():
    assert math.isnan(uniformity(torch.ones(1, 3)))
    assert math.isnan(uniformity(torch.ones(0, 3)))


def test_t_must_be_positive():
    with pytest.raises(ValueError, match="t must be positive"):
        uniformity(torch.eye(3), t=0.0)
