from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ShapeError
from repertoire.ops import energy_hinge


def huber(value: float) -> float:
    return value * value / 2 if value <= 1 else value - 0.5


def energy(row: list[float]) -> float:
    return -math.log(sum(math.exp(v) for v in row))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(0, 99))
def test_agrees_with_the_formula_piece_by_piece(inside, outside, classes, seed):
    """Nothing up to the threshold, a parabola up to 1 beyond it, then a line."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (3 * torch.randn(n, classes, generator=generator, dtype=torch.float64) for n in (inside, outside))
    first = sum(huber(max(0.0, energy(row) + 2.0)) for row in a.tolist()) / inside
    second = sum(huber(max(0.0, -1.0 - energy(row))) for row in b.tolist()) / outside
    found = energy_hinge(a, b, low=-2.0, high=-1.0)
    torch.testing.assert_close(found, torch.tensor(first + second, dtype=torch.float64))


def test_nothing_costs_nothing_and_what_does_not_fit_is_refused():
    assert energy_hinge(torch.zeros(0, 3), torch.zeros(0, 3), -1.0, 1.0) == 0
    with pytest.raises(ShapeError, match="outside must be floating point"):
        energy_hinge(torch.zeros(2, 3), torch.zeros(3), -1.0, 1.0)
