from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.diagnostics import cka_matrix, compare_representations, linear_cka, relative_representation, stitching
from repertoire.errors import ShapeError


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hsic(k, l):  # noqa: E741
    """The unbiased estimate, with matrices of samples."""
    n = len(k)
    k, l = k - torch.diag(k.diagonal()), l - torch.diag(l.diagonal())  # noqa: E741
    rest = k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ l).sum()
    return float(((k * l).sum() + rest) / (n * (n - 3)))


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 15), st.integers(1, 6), st.integers(1, 6), st.integers(0, 999), st.booleans())
def test_cka(count, left, right, seed, unbiased):
    x, y = normal(count, left, seed=seed), normal(count, right, seed=seed + 1)
    y[:, 0] += x[:, 0]
    if unbiased:
        k, l = x @ x.T, y @ y.T  # noqa: E741
        own = hsic(k, k) * hsic(l, l)
        expected = hsic(k, l) / math.sqrt(own) if own > 0 and hsic(k, k) > 0 else math.nan
    else:
        a, b = x - x.mean(0), y - y.mean(0)
        expected = float((a.T @ b).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm()))
    assert linear_cka(x + 100, list((y - 1000).split(5)), unbiased=unbiased) == pytest.approx(
        min(expected, 1.0), rel=1e-6, abs=1e-8, nan_ok=True
    )


def test_rotation_and_scale_do_not_matter_and_unrelated_features_score_nothing():
    x, y = normal(300, 40), normal(300, 40, seed=1)
    turn = torch.linalg.qr(normal(40, 40, seed=2)).Q
    assert linear_cka(x, 7 * x @ turn) == pytest.approx(1)
    assert abs(linear_cka(x, y)) < 0.03
    assert linear_cka(x, y, unbiased=False) > 0.08
    assert cka_matrix([x, y], [x]).shape == (2, 1)


def test_what_has_no_cka():
    assert math.isnan(linear_cka(torch.ones(9, 2), normal(9, 2)))
    assert math.isnan(linear_cka(normal(3, 2), normal(3, 2)))
    with pytest.raises(ShapeError, match="found 5000 rows and 4999"):
        linear_cka(normal(5000, 1), normal(4999, 1))


def test_relative_representations():
    x, anchors = normal(20, 5), normal(7, 5, seed=1)
    expected = [[float(a @ b / a.norm() / b.norm()) for b in anchors] for a in x]
    torch.testing.assert_close(relative_representation(x, anchors), torch.tensor(expected).double())
    turn = 3 * torch.linalg.qr(normal(5, 5, seed=2)).Q
    torch.testing.assert_close(relative_representation(x @ turn, anchors @ turn), torch.tensor(expected).double())
    with pytest.raises(ShapeError, match="one width"):
        relative_representation(x, normal(7, 4))


def test_a_turned_space_is_the_same_space_and_a_random_one_is_not():
    x = normal(200, 6)
    same = compare_representations(x, 2 * x @ torch.linalg.qr(normal(6, 6, seed=2)).Q)
    assert same.cosine == pytest.approx(1)
    assert same.jaccard == pytest.approx(1)
    other = compare_representations(x, normal(200, 6, seed=5))
    assert other.cosine < 0.3
    assert other.jaccard < 0.1
    with pytest.raises(ShapeError, match="same samples"):
        compare_representations(x, x[1:])


def test_stitching_to_a_turned_space():
    labels = torch.arange(200) % 4
    x = normal(200, 8) + 4 * torch.eye(8).double()[labels]
    turned = -x @ torch.linalg.qr(normal(8, 8, seed=2)).Q
    found = stitching((x, turned), labels, (x, turned), labels, anchors=50)
    assert found.relative == found.own > 0.9
    assert found.absolute < 0.6
    assert found.chance == 0.25
    assert stitching((x, turned[:, :7]), labels, (x, turned[:, :7]), labels).absolute is None
    with pytest.raises(ShapeError, match="two classes"):
        stitching((x, x), 0 * labels, (x, x), labels)
    with pytest.raises(ShapeError, match="same samples"):
        stitching((x, x[1:]), labels, (x, x), labels)
