"""Retrieval against a slow loop in float64; ties, corners, and strips that must not show."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from repertoire.errors import ConfigError, ShapeError
from repertoire.metrics import (
    _retrieval,
    map_at_r,
    r_precision,
    recall_at_k,
    retrieval,
    retrieval_average_precision,
)

KS = (1, 2, 5, 100)


def _near(query: np.ndarray, other: np.ndarray, nearness: str) -> float:
    if nearness == "cosine":
        return float(query @ other / max(np.linalg.norm(query), 1e-12) / max(np.linalg.norm(other), 1e-12))
    return float(query @ other if nearness == "dot" else -((query - other) ** 2).sum())


def _reference(x, labels, y, y_labels, nearness):
    """For each query that has something to find: the definitions, one after the other."""
    rows, ap = [], []
    for i in range(len(x)):
        others = [j for j in range(len(y)) if (y is not x or j != i) and y_labels[j] >= 0]
        same = [j for j in others if y_labels[j] == labels[i]]
        if labels[i] < 0 or not same:
            continue
        near = {j: round(_near(x[i], y[j], nearness), 9) for j in others}
        ranked = sorted(others, key=lambda j: (-near[j], y_labels[j] == labels[i]))
        right = [y_labels[j] == labels[i] for j in ranked]
        r = len(same)
        average = sum(sum(right[: k + 1]) / (k + 1) for k in range(r) if right[k]) / r
        rows.append([*(float(any(right[:k])) for k in KS), sum(right[:r]) / r, average])
        ap.append(average_precision_score([y_labels[j] == labels[i] for j in others], [near[j] for j in others]))
    return np.mean(rows, 0) if rows else None, np.mean(ap) if ap else None, len(rows)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 25),
    st.integers(1, 20),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["dot", "euclidean", "cosine"]),
    st.sampled_from([1, 40, 2**21]),
)
def test_agrees_with_the_definitions(seed, count, others, classes, own, ties, nearness, strip):
    rng = np.random.default_rng(seed)
    if nearness == "cosine" and ties:
        draw = lambda n: rng.choice([-1.0, 0.0, 1.0], 1) * np.eye(3)[rng.integers(0, 3, n)]  # noqa: E731
    elif ties:
        draw = lambda n: rng.integers(-2, 3, (n, 2)).astype(float)  # noqa: E731
    else:
        draw = lambda n: rng.normal(size=(n, 3))  # noqa: E731
    x, labels = draw(count), rng.integers(-1, classes, count)
    y, y_labels = (x, labels) if own else (draw(others), rng.integers(-1, classes + 1, others))
    expected, ap, queries = _reference(x, labels, y, y_labels, nearness)
    gallery = () if own else (y, y_labels)
    before = _retrieval._STRIP
    _retrieval._STRIP = strip
    try:
        found = retrieval(x, labels, *gallery, k=KS, nearness=nearness)
        average = retrieval_average_precision(x, labels, *gallery, nearness=nearness)
    finally:
        _retrieval._STRIP = before
    assert found.queries == queries
    if expected is None:
        assert all(map(math.isnan, (*found.recall.values(), found.r_precision, found.map_at_r, average)))
    else:
        values = [*(found.recall[k] for k in KS), found.r_precision, found.map_at_r]
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-7)
        assert average == pytest.approx(ap, rel=1e-5)


def test_the_short_forms():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(30, 4)), rng.integers(0, 3, 30)
    found = retrieval(x, labels, k=(3,))
    assert recall_at_k(x, labels, 3) == found.recall[3]
    assert (r_precision(x, labels), map_at_r(x, labels)) == (found.r_precision, found.map_at_r)


def test_an_embedding_that_collapsed_retrieves_nothing():
    labels = torch.arange(12) // 4
    found = retrieval(torch.ones(12, 3), labels, k=(1, 8, 9), nearness="euclidean")
    assert found.recall == {1: 0.0, 8: 0.0, 9: 1.0}
    assert (found.r_precision, found.map_at_r) == (0, 0)
    # Taken together, the rows are worth their share.
    assert retrieval_average_precision(torch.ones(12, 3), labels, nearness="dot") == pytest.approx(3 / 11)


def test_a_common_offset_costs_no_digits():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 3, 40)
    far = (x.astype(np.float64) + 1000).astype(np.float32)
    near = retrieval(far - np.float32(1000), labels, nearness="euclidean")
    assert retrieval(far, labels, nearness="euclidean") == near


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_other_dtypes(dtype):
    x = torch.tensor([[0, 1], [0, 2], [3, 0], [4, 0]]).to(dtype)
    assert retrieval(x, [0, 0, 1, 1]).map_at_r == 1


def test_what_is_given_stays_as_it_was():
    x = torch.randn(6, 3, requires_grad=True)
    before = x.detach().clone()
    retrieval(x, [0, 0, 1, 1, 2, 2])
    assert torch.equal(x, before)


BAD = [
    (lambda: retrieval(torch.ones(3), [0, 0, 1]), r"embeddings are torch.float32 \[3\]"),
    (lambda: retrieval(torch.ones(3, 2), [0, 0]), r"expected numbers \[2, d\]"),
    (lambda: retrieval(torch.tensor([[math.nan], [0.0]]), [0, 0]), "1 numbers that are not finite"),
    (lambda: retrieval(torch.ones(2, 2), [0, 0], torch.ones(2, 3), [0, 0]), "embeddings have 2 numbers"),
    (lambda: retrieval(torch.ones(2, 2), [0, 0], torch.ones(2, 2)), "come together"),
    (lambda: retrieval(torch.ones(2, 2), [0, 0], k=(0,)), "expected numbers from 1 up"),
    (lambda: retrieval(torch.ones(2, 2), [0, 0], nearness="l1"), "nearness is 'l1'"),
    (lambda: retrieval(torch.ones(2, 2), [0.5, 0]), "labels must be whole numbers"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input(call, message):
    with pytest.raises((ShapeError, ConfigError), match=message):
        call()
