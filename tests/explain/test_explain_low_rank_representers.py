"""Representers of matrices of low rank against the conditions of a minimum and a slow sum."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.explain import fit_low_rank, low_rank_representers


def entries(rows: int, columns: int, share: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(rows, 2, generator=generator) @ torch.randn(2, columns, generator=generator)
    seen = torch.rand(rows, columns, generator=generator) < share
    seen[0, 0] = True
    where = seen.nonzero()
    return where[:, 0], where[:, 1], truth[seen]


def objective(matrix: Tensor, given: tuple[Tensor, Tensor, Tensor], strength: float) -> float:
    rows, columns, values = given
    return float((matrix[rows, columns] - values).square().mean() / 2 + strength * torch.linalg.svdvals(matrix).sum())


def test_all_entries_give_a_thresholded_decomposition():
    given = entries(6, 5, 1.1, 0)
    left, values, right = torch.linalg.svd(given[2].double().view(6, 5), full_matrices=False)
    expected = (left * (values - 0.02 * 30).clamp_min(0)) @ right
    model = fit_low_rank(*given, (6, 5), strength=0.02)
    torch.testing.assert_close((model.left * model.singular_values) @ model.right.T, expected)


def test_nothing_near_is_better():
    given = entries(8, 7, 0.5, 1)
    model = fit_low_rank(*given, (8, 7), strength=0.02)
    matrix = (model.left * model.singular_values) @ model.right.T
    least = objective(matrix, given, 0.02)
    for seed in range(20):
        away = torch.randn(8, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for size in (1e-4, 1e-2, 1.0):
            assert objective(matrix + size * away, given, 0.02) > least


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 8), st.integers(2, 8), st.floats(0.3, 1.0), st.sampled_from([0.003, 0.03]), st.integers(0, 99))
def test_shares_are_the_formula_and_sum_to_the_prediction(rows, columns, share, strength, seed):
    given = entries(rows, columns, share, seed)
    model = fit_low_rank(*given, (rows, columns), strength=strength, max_iter=50_000)
    asked = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).unbind(1)
    shares = low_rank_representers(model, *given, of=asked)
    torch.testing.assert_close(shares.sum(1), model(*asked), rtol=1e-5, atol=1e-5)
    row, column = asked[0][-1], asked[1][-1]
    for k, (r, c, value) in enumerate(zip(*given, strict=True)):
        pull = -(model(r[None], c[None])[0] - value) / (len(given[0]) * strength)
        root = model.singular_values.sqrt()
        user = sum(model.left[row, a] * root[a] * model.left[r, a] for a in range(len(root)))
        item = sum(model.right[column, a] * root[a] * model.right[c, a] for a in range(len(root)))
        assert float(shares[-1, k]) == pytest.approx(float(pull * user * item), abs=1e-9)


def test_entries_that_were_seen_twice_and_a_strength_that_leaves_nothing():
    rows, columns, values = entries(4, 4, 0.8, 2)
    twice = torch.cat([rows, rows]), torch.cat([columns, columns]), torch.cat([values, values])
    once = fit_low_rank(rows, columns, values, (4, 4))
    again = fit_low_rank(*twice, (4, 4))
    torch.testing.assert_close(again(rows, columns), once(rows, columns), rtol=1e-6, atol=1e-6)
    nothing = fit_low_rank(rows, columns, values, (4, 4), strength=100.0)
    assert nothing.singular_values.numel() == 0
    shares = low_rank_representers(nothing, rows, columns, values, of=(rows, columns))
    assert not shares.any()


def test_a_stop_before_the_minimum_is_told():
    with pytest.warns(UserWarning, match="after 1 steps"):
        fit_low_rank(*entries(6, 5, 0.6, 0), (6, 5), max_iter=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": torch.tensor([0, 9])}, "rows must be from 0 to 2, found 0 to 9"),
        ({"columns": torch.tensor([-1, 0])}, "columns must be from 0 to 1"),
        ({"columns": torch.tensor([0])}, "as many as there are entries"),
        ({"rows": torch.tensor([0.0, 1.0])}, "rows must be int64"),
        ({"values": torch.tensor([1.0, float("nan")])}, "values must be 2 finite"),
        ({"values": torch.tensor([1, 2])}, "values must be 2 finite"),
    ],
)
def test_entries_of_no_use(change, message):
    given = {"rows": torch.tensor([0, 1]), "columns": torch.tensor([0, 1]), "values": torch.ones(2), **change}
    with pytest.raises(ShapeError, match=message):
        fit_low_rank(**given, shape=(3, 2))


def test_a_strength_of_no_use():
    with pytest.raises(ConfigError, match="strength must be positive"):
        fit_low_rank(*entries(3, 3, 1.0, 0), (3, 3), strength=0.0)
