"""Otsu's threshold against a loop over all divisions, and against that of histograms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ShapeError
from repertoire.ops import otsu_threshold


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 5, width=32), min_size=2, max_size=30))
def test_otsu_maximises_the_variance_between_the_groups(values):
    best, most = None, -1.0
    rising = sorted(values)
    for n in range(1, len(rising)):
        if rising[n] > rising[n - 1]:
            low, high = rising[:n], rising[n:]
            gap = sum(high) / len(high) - sum(low) / len(low)
            between = len(low) * len(high) * gap**2
            if between > most * (1 + 1e-9):
                best, most = n, between
    found = float(otsu_threshold(torch.tensor(values)))
    if best is None:
        assert found == rising[0]
        return
    low = [value for value in rising if value < found]
    high = [value for value in rising if value >= found]
    assert low
    assert high
    gap = sum(high) / len(high) - sum(low) / len(low)
    assert len(low) * len(high) * gap**2 == pytest.approx(most, rel=1e-4)


def test_otsu_agrees_with_that_of_histograms():
    filters = pytest.importorskip("skimage.filters")
    generator = torch.Generator().manual_seed(0)
    values = torch.cat([torch.rand(400, generator=generator) ** 3, 2 + torch.randn(150, generator=generator).abs()])
    width = float(values.max() - values.min()) / 256
    assert abs(float(otsu_threshold(values)) - filters.threshold_otsu(values.numpy())) < 2 * width


def test_lists_that_have_no_two_groups():
    assert otsu_threshold(torch.zeros(0)) == math.inf
    assert otsu_threshold(torch.tensor([3.0])) == 3
    assert otsu_threshold(torch.full((4,), 2.0)) == 2
    with pytest.raises(ShapeError, match=r"values must be \[N\]"):
        otsu_threshold(torch.zeros(2, 2))
