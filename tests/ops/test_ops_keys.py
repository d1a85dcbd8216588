from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, ShapeError
from repertoire.ops import draw_keys, nearest_keys


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 6), st.integers(1, 4), st.integers(1, 9), st.integers(1, 5), st.integers(0, 99))
def test_the_nearest_key_is_that_of_the_smallest_distance(rows, books, count, width, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, books, width, generator=generator, dtype=torch.float64)
    keys = torch.randn(books, count, width, generator=generator, dtype=torch.float64)
    expected = [
        [
            min(range(count), key=lambda k: sum((a - b) ** 2 for a, b in zip(row[c], keys[c, k].tolist(), strict=True)))
            for c in range(books)
        ]
        for row in x.tolist()
    ]
    assert nearest_keys(x, keys).tolist() == expected


def test_keys_of_data_are_used_where_random_ones_are_not():
    """Data in a corner of the space: the entropy of how often keys are used, of 3.47 at most for 32 keys."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 3, 4, generator=generator) * 0.1 + 5
    made = draw_keys(x, 32, generator=generator)
    drawn = torch.randn(3, 32, 4, generator=generator)

    def entropy(keys: torch.Tensor) -> float:
        shares = [torch.bincount(column, minlength=32) / len(x) for column in nearest_keys(x, keys).T]
        return float(torch.stack([torch.special.entr(p).sum() for p in shares]).min())

    assert entropy(made) > 0.9 * math.log(32)
    assert entropy(drawn) < 0.5 * math.log(32)
    assert made.isfinite().all()


def test_it_ends_where_k_means_would_and_the_generator_decides():
    x = torch.cat([torch.full((50, 2, 1), v) for v in (0.0, 1.0, 8.0)])
    x = x + 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    keys = draw_keys(x, 3, passes=60, generator=torch.Generator().manual_seed(5))
    again = draw_keys(x, 3, passes=60, generator=torch.Generator().manual_seed(5))
    assert torch.equal(keys, again)
    for book in keys:
        assert (book.flatten()[:, None] - torch.tensor([0.0, 1.0, 8.0])).abs().amin(1).max() < 0.6


def test_fewer_rows_than_keys_and_what_does_not_fit():
    keys = draw_keys(torch.tensor([[[1.0]], [[2.0]]]), 5, generator=torch.Generator().manual_seed(0))
    assert keys.shape == (1, 5, 1)
    assert set(keys.flatten().round(decimals=4).tolist()) == {1.0, 2.0}
    with pytest.raises(ShapeError, match=r"\[N, C, m\] of one row or more"):
        draw_keys(torch.zeros(0, 2, 3), 4)
    with pytest.raises(ConfigError, match="count must be positive"):
        draw_keys(torch.zeros(2, 2, 3), 0)
