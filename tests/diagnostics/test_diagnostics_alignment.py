from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.diagnostics import alignment
from repertoire.diagnostics.features import _alignment
from repertoire.errors import ShapeError


def reference(z, pairs, alpha):
    terms = [float(torch.linalg.vector_norm(z[i] - z[j])) ** alpha for i, j in pairs]
    return sum(terms) / len(terms) if terms else math.nan


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 20),
    classes=st.integers(1, 6),
    alpha=st.sampled_from([1.0, 2.0, 3.0]),
    rows=st.integers(1, 7),
    seed=st.integers(0, 1000),
)
def test_same_class_pairs_one_by_one(n, classes, alpha, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(-1, classes - 1, (n,), generator=generator)
    z = x / x.norm(dim=1, keepdim=True)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j and labels[i] == labels[j]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_alignment, "_ROWS", rows)
        assert alignment(x, labels, alpha=alpha) == pytest.approx(reference(z, pairs, alpha), nan_ok=True, abs=1e-12)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_given_positives(alpha):
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    z = torch.nn.functional.normalize(torch.cat([x, y]), dim=1)
    expected = reference(z, [(i, i + 5) for i in range(5)], alpha)
    assert alignment(x, positives=y, alpha=alpha) == pytest.approx(expected)
    assert alignment(x, torch.zeros(5, dtype=torch.int64), positives=y, alpha=alpha) == pytest.approx(expected)


def test_collapsed_classes_keep_their_digits():
    # 2 - 2 cos would lose them in float32: the distances are a thousandth.
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.ones(200, 16) + 1e-3 * torch.randn(200, 16, generator=generator), dim=1)
    labels = torch.zeros(200, dtype=torch.int64)
    assert alignment(x, labels) == pytest.approx(alignment(x.double(), labels), rel=1e-3)
    assert alignment(x, labels, alpha=1.0) == pytest.approx(alignment(x.double(), labels, alpha=1.0), rel=1e-3)


def test_no_positive_pairs_is_nan():
    assert math.isnan(alignment(torch.eye(3), torch.arange(3)))
    assert math.isnan(alignment(torch.zeros(0, 3), positives=torch.zeros(0, 3)))


def test_wrong_arguments():
    with pytest.raises(ShapeError, match="alignment needs labels, or positives"):
        alignment(torch.eye(3))
    with pytest.raises(ShapeError, match=r"view 1 must be torch.float32 \[3, 3\] like the first view"):
        alignment(torch.eye(3), positives=torch.eye(2))
    with pytest.raises(ValueError, match="alpha must be at least 1"):
        alignment(torch.eye(3), torch.arange(3), alpha=0.0)
