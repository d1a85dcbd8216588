from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.diagnostics import effective_rank
from repertoire.diagnostics.features import _effective_rank
from repertoire.errors import ShapeError


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 12), width=st.integers(1, 6), rows=st.integers(1, 7), seed=st.integers(0, 1000))
def test_is_the_entropy_of_the_singular_values(n, width, rows, seed):
    x = torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = [float(v) for v in torch.linalg.svdvals(x - x.mean(0)) if v > 1e-12]
    entropy = -sum(v / sum(values) * math.log(v / sum(values)) for v in values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_effective_rank, "_ROWS", rows)
        assert effective_rank(x) == pytest.approx(math.exp(entropy), rel=1e-6)


def test_scale_shift_and_turns_do_not_matter():
    x = torch.randn(50, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    assert effective_rank(3 * x @ turn + 1) == pytest.approx(effective_rank(x))


def test_collapsed_features_use_few_dimensions():
    x = torch.randn(500, 32, generator=torch.Generator().manual_seed(0))
    assert effective_rank(x) > 30
    assert effective_rank(x * (torch.arange(32) < 4)) == pytest.approx(4, abs=0.1)
    assert effective_rank(torch.ones(9, 4)) == 0.0


def test_no_features_and_features_that_are_not_finite_are_nan():
    assert math.isnan(effective_rank(torch.zeros(0, 3)))
    assert math.isnan(effective_rank(torch.full((4, 3), torch.nan)))


def test_features_must_be_a_matrix():
    with pytest.raises(ShapeError, match="features must be a floating point"):
        effective_rank(torch.zeros(3))
