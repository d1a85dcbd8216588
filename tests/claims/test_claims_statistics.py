"""The interval and the verdict, against the textbook."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from repertoire.claims import interval, verdict

numbers = st.floats(-10, 10).map(lambda x: round(x, 6))


@settings(max_examples=50, deadline=None)
@given(st.lists(numbers, min_size=2, max_size=12), st.sampled_from([0.8, 0.95, 0.99]))
def test_interval_is_student_s(differences: list[float], confidence: float) -> None:
    low, high = interval(differences, confidence)
    if len(set(differences)) == 1:
        assert low == high == differences[0]
        return
    expected = stats.t.interval(
        confidence, len(differences) - 1, loc=np.mean(differences), scale=stats.sem(np.array(differences, np.float64))
    )
    np.testing.assert_allclose((low, high), expected, rtol=1e-9, atol=1e-12)


def test_one_difference_says_nothing() -> None:
    assert interval([0.3]) == (-math.inf, math.inf)
    assert verdict([0.3], 0.0) == "inconclusive"


def test_what_cannot_be_decided_from() -> None:
    with pytest.raises(ValueError, match="at least one"):
        interval([])
    with pytest.raises(ValueError, match="confidence"):
        interval([1.0, 2.0], 1.0)


@pytest.mark.parametrize(
    ("differences", "threshold", "expected"),
    [
        ([0.02, 0.03, 0.025], 0.0, "holds"),
        ([0.02, 0.03, 0.025], 0.1, "does not hold"),
        ([0.02, 0.03, 0.025], 0.025, "inconclusive"),
        ([-0.02, -0.03, -0.025], 0.0, "does not hold"),
        ([-0.02, -0.03, -0.025], -0.1, "holds"),
        ([0.1, -0.1, 0.2], 0.0, "inconclusive"),
        ([0.1, 0.1, 0.1], 0.0, "holds"),
        ([0.1, 0.1, 0.1], 0.1, "inconclusive"),
        ([-0.1, -0.1, -0.1], 0.0, "does not hold"),
        ([0.0, 0.0, 0.0], 0.0, "inconclusive"),
    ],
)
def test_verdict(differences: list[float], threshold: float, expected: str) -> None:
    assert verdict(differences, threshold) == expected


def test_the_verdict_is_wrong_as_rarely_as_it_says() -> None:
    """With no difference at all, "holds" comes out in 2.5 % of cases."""
    random = np.random.default_rng(0)
    verdicts = [verdict(list(random.normal(size=5)), 0.0) for _ in range(2000)]
    assert 0.015 < verdicts.count("holds") / 2000 < 0.036
    assert 0.015 < verdicts.count("does not hold") / 2000 < 0.036
