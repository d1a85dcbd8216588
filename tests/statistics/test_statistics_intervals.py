"""Interval, verdict, tests and power, against the textbook and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from repertoire.statistics import benjamini_hochberg, clustered_interval, holm, interval, p_value, seeds_needed
from repertoire.statistics._intervals import _power

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
    assert interval([0.3], bounds=(0, 1)) == (0, 1)


def test_what_cannot_be_decided_from() -> None:
    with pytest.raises(ValueError, match="at least one"):
        interval([])
    with pytest.raises(ValueError, match="confidence"):
        interval([1.0, 2.0], 1.0)


def test_an_interval_of_shares_stays_among_shares() -> None:
    """It is cut to the bounds, and the mean of shares is as often inside as before."""
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        low, high = interval(list(random.beta(9.5, 0.5, size=5)), bounds=(0, 1))
        assert 0 <= low <= high <= 1
        inside += low <= 0.95 <= high
    free = sum(
        low <= 0.95 <= high for low, high in map(interval, np.random.default_rng(0).beta(9.5, 0.5, (2000, 5)).tolist())
    )
    assert inside == free


@pytest.mark.parametrize("share", [0.15, 0.5])
def test_overlapping_training_sets_are_allowed_for(share: float) -> None:
    """Values whose pairs are correlated as parts of one finite set are: Nadeau and Bengio take r / (1 + r)."""
    ratio = share / (1 - share)
    random = np.random.default_rng(0)
    correlation = ratio / (1 + ratio)
    draws = math.sqrt(1 - correlation) * random.normal(size=(2000, 10)) + math.sqrt(correlation) * random.normal(
        size=(2000, 1)
    )
    spans = [interval(row, overlap=ratio) for row in draws.tolist()]
    assert 0.93 < np.mean([low < 0 < high for low, high in spans]) < 0.97
    naive = [interval(row) for row in draws.tolist()]
    assert np.mean([low < 0 < high for low, high in naive]) < 0.9
    assert p_value([0.1, 0.2, 0.3], overlap=0.2) > p_value([0.1, 0.2, 0.3])


def test_clusters_count_alike_and_their_spread_is_seen() -> None:
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(300):
        centres = random.normal(size=12)
        clusters = [list(centre + random.normal(size=size)) for centre, size in zip(centres, [5, 30] * 6, strict=True)]
        low, high = clustered_interval(clusters, draws=500)
        inside += low < 0 < high
    assert 0.88 < inside / 300 < 0.99
    one = clustered_interval([list(random.normal(size=400))])
    assert one[1] - one[0] == pytest.approx(2 * 1.96 / 20, rel=0.15)
    with pytest.raises(ValueError, match="at least one value"):
        clustered_interval([[1.0], []])


@pytest.mark.parametrize(
    ("given_", "expected"),
    [([], []), ([0.02], [0.02]), ([0.01, 0.04, 0.03], [0.03, 0.04, 0.04]), ([0.01, 0.2, 0.9], [0.03, 0.3, 0.9])],
)
def test_benjamini_hochberg(given_: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(benjamini_hochberg(given_), expected)
    if given_:
        np.testing.assert_allclose(benjamini_hochberg(given_), stats.false_discovery_control(given_))


@settings(max_examples=50, deadline=None)
@given(st.lists(numbers, min_size=2, max_size=12))
def test_p_value_is_that_of_the_paired_t_test(differences: list[float]) -> None:
    found = p_value(differences)
    if len(set(differences)) == 1:
        sign_test = stats.binomtest(0, len(differences)).pvalue
        np.testing.assert_allclose(found, 1.0 if differences[0] == 0 else sign_test)
        return
    expected = stats.ttest_1samp(np.array(differences, np.float64), 0).pvalue
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-12)
    low, high = interval(differences)
    if abs(found - 0.05) > 1e-9:
        assert (found < 0.05) == (low > 0 or high < 0), "the test and the interval disagree"


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ([], []),
        ([0.02], [0.02]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.01, 0.01, 0.01], [0.03, 0.03, 0.03]),
        ([0.0, 0.02], [0.0, 0.02]),
    ],
)
def test_holm(given_: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(holm(given_), expected)


def test_holm_keeps_its_word_however_many_are_compared() -> None:
    """Of seven comparisons without any difference, one or more are found in at most 5 % of cases; without it, in 30."""
    random = np.random.default_rng(0)
    plain = adjusted = 0
    for _ in range(600):
        found = [p_value(list(random.normal(size=5))) for _ in range(7)]
        plain += min(found) < 0.05
        adjusted += min(holm(found)) < 0.05
    assert plain / 600 > 0.2
    assert adjusted / 600 < 0.075


@pytest.mark.parametrize("effect", [0.4, 0.8, 2.0])
def test_as_many_seeds_as_needed_find_the_difference_as_often_as_promised(effect: float) -> None:
    spread = np.array([-1.0, 0.0, 1.0])
    needed = seeds_needed(list(effect + spread))
    assert needed is not None
    random = np.random.default_rng(1)
    draws = effect + random.normal(size=(4000, needed))
    found = stats.ttest_1samp(draws, 0, axis=1)
    assert 0.78 < np.mean((found.pvalue < 0.05) & (found.statistic > 0)) < 0.95
    fewer = stats.ttest_1samp(draws[:, : needed - 1], 0, axis=1) if needed > 2 else None
    assert fewer is None or np.mean((fewer.pvalue < 0.05) & (fewer.statistic > 0)) < 0.82


def test_a_stricter_level_needs_more_seeds() -> None:
    differences = [0.4, 1.0, -0.2]
    loose, strict = seeds_needed(differences), seeds_needed(differences, alpha=0.05 / 7)
    assert loose is not None
    assert strict is not None
    assert strict > loose


def test_where_no_number_of_seeds_would_tell() -> None:
    assert seeds_needed([1.0, -1.0]) is None
    assert seeds_needed([0.0, 0.0, 0.0]) is None
    assert seeds_needed([1.0, -0.999]) is None
    assert seeds_needed([0.1, 0.1]) == 6
    assert p_value([0.1] * 6) < 0.05 < p_value([0.1] * 5)
    with pytest.raises(ValueError, match="no spread"):
        seeds_needed([0.1])
    with pytest.raises(ValueError, match="at least one"):
        p_value([])
    assert p_value([0.5]) == 1.0


def test_power_is_that_of_the_noncentral_t_distribution_and_rises_with_the_effect() -> None:
    for effect, count in ((0.3, 40), (0.8, 15), (2.0, 5)):
        critical = stats.t.ppf(1 - 0.05 / 2, count - 1)
        expected = stats.nct.sf(critical, count - 1, effect * math.sqrt(count))
        assert _power(effect, count, 0.05) == pytest.approx(expected, abs=1e-3)
    for effect in (13, 22, 50, 1000):
        assert _power(effect, 3, 0.05 / 7) == pytest.approx(1.0, abs=0.05)
    assert [seeds_needed([1.0, 1.0 + width], alpha=0.05 / 7) for width in (0.001, 0.01, 0.1)] == [2, 2, 3]


def test_arrays_will_do_and_what_is_no_p_value_is_refused():
    values = np.array([0.1, 0.2, 0.4])
    assert interval(values) == interval(values.tolist())
    assert p_value(values) == p_value(values.tolist())
    for correct in (holm, benjamini_hochberg):
        assert correct(np.array([0.01, 0.04])) == correct([0.01, 0.04])
        for wrong in (math.nan, -0.1, 1.1):
            with pytest.raises(ValueError, match=r"p values must lie in \[0, 1\]"):
                correct([wrong, 0.01])
