"""The smallest change that is kept, found without holding all of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.weights._trim import kept_from


def reference(state, base, density):
    """All changes of all tensors in one list."""
    changes = sorted(
        abs(x - y)
        for name in state
        if state[name].is_floating_point()
        for x, y in zip(state[name].double().flatten().tolist(), base[name].double().flatten().tolist(), strict=True)
    )
    return changes[-max(1, int(density * len(changes)))]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=4),
    st.sampled_from([0.01, 0.2, 0.5, 0.99]),
    st.sampled_from([1e-3, 1.0, 1e4]),
    st.integers(0, 99),
)
def test_it_is_what_sorting_gives(sizes, density, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    base, state = (
        {f"t{i}": spread**i * torch.randn(n, generator=generator, dtype=torch.float64) for i, n in enumerate(sizes)}
        for _ in range(2)
    )
    state["counter"] = base["counter"] = torch.tensor(3)
    assert kept_from(state, base, density) == reference(state, base, density)


def test_equal_changes_zeros_and_pieces(monkeypatch):
    monkeypatch.setattr("repertoire.weights._wide.PIECE", 3)
    base = {"w": torch.zeros(8)}
    assert kept_from({"w": torch.tensor([2.0, -2.0, 2.0, 1.0, 0, 0, 0, 0])}, base, 0.25) == 2.0
    assert kept_from({"w": torch.tensor([2.0, 0, 0, 0, 0, 0, 0, 0])}, base, 0.5) == 0.0
    assert kept_from(base, base, 0.5) == 0.0
    assert kept_from({"w": torch.ones(8)}, base, 1.0) == 0.0
    assert kept_from({"none": torch.zeros(0)}, {"none": torch.zeros(0)}, 0.5) == 0.0


def test_pairs_of_numbers_count_as_two():
    found = kept_from({"w": torch.tensor([3 + 1j, 0 - 4j])}, {"w": torch.zeros(2, dtype=torch.complex64)}, 0.5)
    assert found == pytest.approx(3.0)
