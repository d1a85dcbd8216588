from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, DataError, ShapeError
from repertoire.select import top_k_per_class


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 12), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6), st.integers(0, 999))
def test_agrees_with_a_sort_of_every_class(count, classes, k, most, seed):
    # Few values, so that there are ties.
    scores = np.random.default_rng(seed).integers(0, 4, (count, classes)) / 4
    expected = []
    for c in range(classes):
        able = [i for i in range(count) if sorted(range(classes), key=lambda j: (-scores[i, j], j)).index(c) < most]
        expected += [(i, c) for i in sorted(able, key=lambda i: (-scores[i, c], i))[:k]]
    found = top_k_per_class(torch.from_numpy(scores), k, most=most)
    assert list(zip(found.index.tolist(), found.labels.tolist(), strict=True)) == expected
    assert found.scores.tolist() == [scores[i, c] for i, c in expected]


def test_every_class_gets_as_many_where_a_threshold_would_take_one_class_alone():
    """A teacher that is sure of the first class and unsure of the second."""
    generator = np.random.default_rng(0)
    p = np.concatenate([generator.uniform(0.8, 1, 90), generator.uniform(0.3, 0.5, 10)])
    found = top_k_per_class(torch.from_numpy(np.stack([p, 1 - p], 1)), 10)
    assert np.bincount(found.labels).tolist() == [10, 10]
    assert set(found.index[found.labels == 1].tolist()) == set(range(90, 100))


def test_a_sample_may_be_of_several_classes_unless_it_is_kept_to_one():
    scores = torch.tensor([[0.5, 0.4, 0.1], [0.4, 0.3, 0.3]])
    assert top_k_per_class(scores, 1).index.tolist() == [0, 0, 1]
    assert top_k_per_class(scores, 1, most=1).labels.tolist() == [0]


def test_what_is_refused():
    with pytest.raises(ConfigError, match="k must be positive"):
        top_k_per_class(torch.zeros((2, 2)), 0)
    with pytest.raises(ConfigError, match="most must be positive"):
        top_k_per_class(torch.zeros((2, 2)), 1, most=0)
    with pytest.raises(ShapeError, match="scores must be"):
        top_k_per_class(torch.zeros(3), 1)
    with pytest.raises(DataError, match="1 of 4 are not"):
        top_k_per_class(torch.tensor([[0, torch.nan], [1, 2]]), 1)
