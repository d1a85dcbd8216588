from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, ShapeError
from repertoire.ops import RidgeRecursion


def joint(x: torch.Tensor, y: torch.Tensor, ridge: float) -> torch.Tensor:
    return torch.linalg.solve(x.T @ x + ridge * torch.eye(x.shape[1], dtype=torch.float64), x.T @ y)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 30), st.sampled_from([1e-3, 1.0, 100.0]), st.integers(1, 40), st.integers(0, 999)
)
def test_pieces_of_any_size_give_what_all_rows_give_at_once(count, width, ridge, largest, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, width, generator=generator, dtype=torch.float64)
    y = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    found = RidgeRecursion(width, ridge)
    found.widen(3)
    at = 0
    while at < count:
        size = int(torch.randint(1, largest + 1, (), generator=generator))
        found.update(x[at : at + size], y[at : at + size])
        at += size
    expected = joint(x, y, ridge)
    assert (found.weight - expected).abs().max() < 1e-6 * expected.abs().max()
    assert torch.equal(found.inverse, found.inverse.T)


def test_thousands_of_single_rows_drift_no_further():
    """Correlated rows and a small ridge, where R spans six orders of magnitude."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 20, generator=generator, dtype=torch.float64) + 3
    y = torch.nn.functional.one_hot(torch.randint(0, 4, (3000,), generator=generator)).double()
    found = RidgeRecursion(20, 1e-3, outputs=4)
    for row in range(len(x)):
        found.update(x[row : row + 1], y[row : row + 1])
    expected = joint(x, y, 1e-3)
    assert (found.weight - expected).abs().max() < 1e-8 * expected.abs().max()


def test_a_new_output_is_one_that_was_always_zero_and_float32_rows_are_learned_in_float64():
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(12, 2)
    y[:6, 0], y[6:, 1] = 1, 1
    found = RidgeRecursion(4, 0.5, outputs=1)
    found.update(x[:6], y[:6, :1])
    before = found.weight.clone()
    found.widen(2)
    assert torch.equal(found.weight[:, :1], before)
    found.update(x[:0], y[:0])
    found.update(x[6:], y[6:])
    torch.testing.assert_close(found.weight, joint(x.double(), y.double(), 0.5), rtol=1e-10, atol=1e-12)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="ridge must be positive"):
        RidgeRecursion(3, 0.0)
    found = RidgeRecursion(3, outputs=2)
    with pytest.raises(ShapeError, match=r"x must be a floating point \[n, 3\]"):
        found.update(torch.zeros(2, 4), torch.zeros(2, 2))
    with pytest.raises(ShapeError, match=r"y must be a floating point \[n, 2\]"):
        found.update(torch.zeros(2, 3), torch.zeros(3, 2))
    with pytest.raises(ShapeError, match="2 outputs already"):
        found.widen(1)
