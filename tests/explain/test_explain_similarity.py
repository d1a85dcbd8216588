from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from repertoire.errors import ShapeError
from repertoire.explain import map_correlation, rank_correlation, structural_similarity


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(2, 6), st.integers(1, 6), st.sampled_from([3, 1000]), st.integers(0, 999))
def test_correlations_agree_with_scipy(count, height, width, levels, seed):
    """With few levels most pixels are tied."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randint(levels, (count, height, width), generator=generator).double() for _ in range(2))
    pearson, spearman = map_correlation(a, b), rank_correlation(a, b)
    for i in range(count):
        x, y = a[i].flatten().numpy(), b[i].flatten().numpy()
        if np.ptp(x) and np.ptp(y):
            assert pearson[i] == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-9)
            assert spearman[i] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
        else:
            assert pearson[i] == spearman[i] == float(np.ptp(x) == np.ptp(y))


def test_ranks_ignore_a_rising_scale():
    a, b = torch.rand(2, 3, 5, 5)
    torch.testing.assert_close(rank_correlation(a, b), rank_correlation(a.exp(), 100 * b**3))


def slow_ssim(x, y):
    kernel = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    weights = np.outer(kernel, kernel) / kernel.sum() ** 2
    x, y, found = x / x.max(), y / y.max(), []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            u, v = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            m, n = (weights * u).sum(), (weights * v).sum()
            p, q = (weights * (u - m) ** 2).sum(), (weights * (v - n) ** 2).sum()
            r = (weights * (u - m) * (v - n)).sum()
            found.append((2 * m * n + 1e-4) * (2 * r + 9e-4) / ((m * m + n * n + 1e-4) * (p + q + 9e-4)))
    return np.mean(found)


def test_similarity_agrees_with_the_formula_window_by_window():
    generator = np.random.default_rng(0)
    a = generator.random((3, 14, 17))
    b = a + generator.random((3, 14, 17)) * np.array([0.0, 0.3, 3.0])[:, None, None]
    found = structural_similarity(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(found, [slow_ssim(x, y) for x, y in zip(a, b, strict=True)], rtol=1e-9)
    assert found[0] > found[1] > found[2]


def test_similarity_of_maps_smaller_than_a_window():
    a = torch.rand(2, 4, 8)
    torch.testing.assert_close(structural_similarity(a, 2 * a), torch.ones(2))


@pytest.mark.parametrize("measure", [map_correlation, rank_correlation, structural_similarity])
def test_bad_input(measure):
    with pytest.raises(ShapeError, match="two maps must be"):
        measure(torch.rand(2, 3, 3), torch.rand(2, 3, 4))
    with pytest.raises(ShapeError, match="two maps must be"):
        measure(torch.ones(3, 3), torch.ones(3, 3))
