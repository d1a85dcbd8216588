from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError
from repertoire.ops import soft_last, soft_sort


def reference(values, steepness):
    """The network of the paper, one swap and one matrix after the other."""
    values, n = list(values), len(values)
    ranks = torch.eye(n, dtype=torch.float64)
    for layer in range(n):
        for left in range(layer % 2, n - 1, 2):
            a, b = values[left], values[left + 1]
            alpha = math.atan(steepness * (b - a)) / math.pi + 0.5
            values[left], values[left + 1] = alpha * a + (1 - alpha) * b, (1 - alpha) * a + alpha * b
            first, second = ranks[:, left].clone(), ranks[:, left + 1].clone()
            ranks[:, left] = alpha * first + (1 - alpha) * second
            ranks[:, left + 1] = (1 - alpha) * first + alpha * second
    return values, ranks


@settings(max_examples=25, deadline=None)
@given(n=st.integers(0, 7), steepness=st.sampled_from([0.3, 1.0, 50.0]), seed=st.integers(0, 1000))
def test_is_the_network_swap_by_swap(n, steepness, seed):
    values = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    ordered, ranks = soft_sort(values, steepness)
    expected, matrix = reference(values.tolist(), steepness)
    torch.testing.assert_close(ordered, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(ranks, matrix)
    for count in range(n + 1):
        torch.testing.assert_close(soft_last(values, count, steepness), matrix[:, n - count :].sum(1))


def test_a_batch_is_sorted_row_by_row():
    values = torch.randn(2, 3, 5, dtype=torch.float64)
    ordered, ranks = soft_sort(values)
    assert ranks.shape == (2, 3, 5, 5)
    torch.testing.assert_close(ordered[1, 2], soft_sort(values[1, 2])[0])
    torch.testing.assert_close(ranks[1, 2], soft_sort(values[1, 2])[1])
    torch.testing.assert_close(soft_last(values, 2)[1, 2], soft_last(values[1, 2], 2))


def test_ranks_are_doubly_stochastic_and_keep_the_sum():
    values = torch.randn(4, 6, dtype=torch.float64)
    ordered, ranks = soft_sort(values)
    ones = torch.ones(4, 6, dtype=torch.float64)
    torch.testing.assert_close(ranks.sum(-1), ones)
    torch.testing.assert_close(ranks.sum(-2), ones)
    assert (ranks >= 0).all()
    torch.testing.assert_close((values[:, :, None] * ranks).sum(1), ordered)


def test_hard_swaps_sort():
    values = torch.randperm(9, generator=torch.Generator().manual_seed(0)).double()
    ordered, ranks = soft_sort(values, steepness=1e9)
    torch.testing.assert_close(ordered, values.sort().values, atol=1e-4, rtol=0)
    assert torch.equal(ranks.argmax(1), values.long())
    torch.testing.assert_close(soft_last(values, 3, 1e9).round(), (values >= 6).double())


def test_gradcheck():
    values = torch.randn(5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(soft_sort, (values,))
    assert torch.autograd.gradcheck(lambda values: soft_last(values, 2), (values,))


def test_wrong_arguments():
    for steepness in (0.0, -1.0, math.nan):
        with pytest.raises(ConfigError, match="steepness must be positive"):
            soft_sort(torch.zeros(3), steepness)
    for count in (-1, 4):
        with pytest.raises(ConfigError, match="count must be 0 to 3, the number of values"):
            soft_last(torch.zeros(3), count)
