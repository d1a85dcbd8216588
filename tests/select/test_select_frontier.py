from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, ShapeError
from repertoire.select import frontier


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=12), st.integers(-6, 6), st.data())
def test_the_least_known_above_the_floor_then_the_nearest_below(values, floor, data):
    budget = data.draw(st.integers(1, len(values)))
    above = sorted((v, i) for i, v in enumerate(values) if v >= floor)
    below = sorted((-v, i) for i, v in enumerate(values) if v < floor)
    expected = [i for _, i in above + below][:budget]
    assert frontier(torch.tensor(values, dtype=torch.float64), budget, float(floor)).tolist() == expected


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match="finite"):
        frontier(torch.tensor([0.0, float("nan")]), 1, 0.0)
    with pytest.raises(ConfigError, match="budget"):
        frontier(torch.zeros(3), 4, 0.0)
