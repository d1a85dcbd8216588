"""Decisions at several looks: what each kind compares, and how often it is wrong."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from repertoire.statistics import LOOKS, NOMINAL, contrasts, decide, interval, smallest_effect

CLAIMS = 2000


def looked_at(found: np.ndarray, threshold: float = 0.0, **options) -> tuple[str, int]:
    """Verdict and number of seeds, of contrasts `[m, 20]`, stopped at the first look that decides."""
    for count in LOOKS:
        said = decide([row[:count].tolist() for row in found], threshold, **options)
        if said.verdict != "undecided":
            break
    return said.verdict, count


def rates(means: list[float], threshold: float = 0.0, seed: int = 0, **options) -> dict[str, float]:
    """How often each verdict comes out, for contrasts of these means and deviation 1."""
    draws = np.random.default_rng(seed).normal(size=(CLAIMS, len(means), LOOKS[-1])) + np.array(means)[:, None]
    counts = Counter(looked_at(found, threshold, **options)[0] for found in draws)
    return {verdict: counts[verdict] / CLAIMS for verdict in ("holds", "does not hold", "undecided")}


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_better_is_wrong_in_five_per_cent_of_cases_at_its_threshold_all_looks_together(threshold: float):
    found = rates([threshold], threshold)
    assert 0.015 < found["holds"] < 0.036
    assert 0.015 < found["does not hold"] < 0.036
    assert 0.04 < found["holds"] + found["does not hold"] < 0.065


def test_looking_again_at_an_uncorrected_level_would_be_wrong_twice_as_often():
    found = rates([0.0], level=0.05)
    assert found["holds"] + found["does not hold"] > 0.085


@pytest.mark.parametrize("mean", [0.0, 0.3, 1.0, 2.0])
def test_the_interval_covers_after_optional_stopping(mean: float):
    """As often as it says, over all looks together, whatever the effect that makes it stop early."""
    inside = 0
    for row in np.random.default_rng(1).normal(mean, 1, size=(CLAIMS, LOOKS[-1])):
        _, count = looked_at(row[None])
        low, high = interval(row[:count].tolist(), 1 - NOMINAL)
        inside += low <= mean <= high
    assert inside / CLAIMS > 0.935


def test_a_large_effect_is_found_at_the_first_look():
    draws = np.random.default_rng(2).normal(4, 1, size=(200, 1, LOOKS[-1]))
    assert Counter(looked_at(found) for found in draws)[("holds", 5)] > 150


def test_equivalence_is_claimed_wrongly_in_five_per_cent_of_cases_at_its_margin():
    assert rates([1.0], 1.0, kind="equivalent")["holds"] < 0.065
    assert rates([-1.0], 1.0, kind="equivalent")["holds"] < 0.065
    assert rates([0.0], 1.5, kind="equivalent")["holds"] > 0.95
    assert rates([3.0], 1.0, kind="equivalent")["does not hold"] > 0.95


def test_an_ordering_needs_every_step():
    """One step that is none: it holds as rarely as a single comparison would, and is not said to be reversed."""
    found = rates([5.0, 0.0, 5.0], kind="ordering")
    assert found["holds"] < 0.036
    assert found["does not hold"] < 0.036
    assert rates([2.0, 2.0, 2.0], kind="ordering")["holds"] > 0.95
    assert rates([2.0, -2.0, 2.0], kind="ordering")["does not hold"] > 0.95
    # All steps at the null at once: the correction for their number keeps the error.
    assert rates([0.0, 0.0, 0.0], kind="ordering")["does not hold"] < 0.04


def test_an_optimum_that_is_none_is_rarely_found():
    """A flat curve of six arms: choosing the best on the other seeds gives no advantage."""
    random = np.random.default_rng(3)
    counts: Counter[str] = Counter()
    for curve in random.normal(size=(CLAIMS, LOOKS[-1], 6)):
        for count in LOOKS:
            said = decide(contrasts("optimum", curve[:count].tolist()), kind="optimum")
            if said.verdict != "undecided":
                break
        counts[said.verdict] += 1
    assert counts["holds"] / CLAIMS < 0.036
    hill = np.array([0.0, 1.0, 3.0, 1.0, 0.0, -1.0])
    sure = [
        decide(contrasts("optimum", (hill + random.normal(size=(10, 6))).tolist()), kind="optimum").verdict
        for _ in range(100)
    ]
    assert sure.count("holds") > 90


def test_a_trend_is_the_slope_of_every_seed():
    points = [1.0, 2.0, 4.0, 8.0]
    rows = np.random.default_rng(4).normal(size=(6, 4))
    (slopes,) = contrasts("trend", rows.tolist(), points)
    np.testing.assert_allclose(slopes, [np.polyfit(points, row, 1)[0] for row in rows])
    random = np.random.default_rng(5)
    flat = [
        looked_at(np.array(contrasts("trend", random.normal(size=(20, 4)).tolist(), points)))[0] for _ in range(CLAIMS)
    ]
    assert 0.03 < 1 - flat.count("undecided") / CLAIMS < 0.07


def test_an_identity_is_decided_by_its_largest_error():
    assert decide([[1e-7, 2e-7, 3e-7]], 1e-6, kind="identity").verdict == "holds"
    found = decide([[1e-7, 2e-5, 3e-7]], 1e-6, kind="identity")
    assert (found.verdict, found.mean, found.interval) == ("does not hold", 2e-5, None)
    assert "2e-05" in found.reason


@pytest.mark.parametrize(
    ("values", "threshold", "strict", "expected"),
    [
        ([16.0] * 5, 16.0, False, "holds"),
        ([16.0] * 5, 16.0, True, "does not hold"),
        ([16.0, 15.0], 16.0, False, "undecided"),
        ([15.0, 15.5], 16.0, False, "does not hold"),
        ([17.0], 16.0, True, "holds"),
    ],
)
def test_at_least_is_not_more_than(values: list[float], threshold: float, strict: bool, expected: str):
    assert decide([values], threshold, strict=strict, exact=True).verdict == expected


def test_equal_results_of_chance_decide_nothing_about_themselves():
    assert decide([[0.0] * 5]).verdict == "undecided"
    assert decide([[0.0] * 5], strict=False).verdict == "holds"
    assert decide([[0.3]]).verdict == "undecided"
    assert decide([[0.3]]).interval is None


@pytest.mark.parametrize(
    ("values", "threshold", "reason"),
    [
        ([0.011, 0.010, 0.009, 0.010, 0.010], 0.05, "the effect is there and smaller than claimed"),
        ([-0.011, -0.010, -0.009, -0.010, -0.010], 0.0, "the effect is reversed"),
        ([0.001, -0.001, 0.0, 0.001, -0.001], 0.05, "no effect of the claimed size"),
    ],
)
def test_it_says_how_a_claim_fails(values: list[float], threshold: float, reason: str):
    found = decide([values], threshold)
    assert (found.verdict, found.reason) == ("does not hold", reason)


def test_an_identity_says_by_how_little_it_fails():
    assert decide([[0.5, 1.0004]], 1.0, kind="identity").reason == "the largest error is 1.0004, 1 are allowed"
    assert decide([[math.inf]], 1e-5, kind="identity").reason == "the largest error is inf, 1e-05 are allowed"


def test_images_within_networks_are_the_unit_where_they_vary():
    """Networks that agree: the images say how sure the difference is, and networks vary. Few images each where it is
    drawn often, since every draw is resampled thousands of times."""
    random = np.random.default_rng(7)
    verdicts: Counter[str] = Counter()
    for _ in range(300):
        rows = [random.normal(0, 1, 20).tolist() for _ in range(8)]
        means = [sum(row) / 20 for row in rows]
        verdicts[decide([means], clusters=rows).verdict] += 1
    assert verdicts["undecided"] / 300 > 0.93
    rows = [random.normal(0.3, 1, 200).tolist() for _ in range(5)]
    found = decide([[sum(row) / 200 for row in rows]], 0.1, clusters=rows)
    assert (found.verdict, found.p < 0.01) == ("holds", True)
    assert found.interval is not None
    assert found.interval[0] < found.mean < found.interval[1]


def test_the_p_value_meets_the_level_where_the_interval_meets_the_threshold():
    values = [0.1, 0.3, 0.2, 0.15, 0.22]
    low, _ = interval(values, 1 - NOMINAL)
    assert decide([values], low).p == pytest.approx(0.025, rel=1e-3)


def test_the_smallest_effect_is_found_in_four_cases_of_five():
    spread = [-1.0, 0.0, 1.0]
    effect = smallest_effect(spread, 10)
    draws = np.random.default_rng(6).normal(effect, 1, size=(CLAIMS, 10))
    found = np.mean([decide([row.tolist()]).verdict == "holds" for row in draws])
    assert 0.74 < found < 0.84
    assert math.isclose(smallest_effect(spread, 10, overlap=0.3) / effect, math.sqrt(4))


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="at least 3 values"):
        contrasts("optimum", [[1.0, 2.0]])
    with pytest.raises(ValueError, match="at least 2 values"):
        contrasts("better", [[1.0, 2.0], [1.0]])
    with pytest.raises(ValueError, match="needs 3 points"):
        contrasts("trend", [[1.0, 2.0, 3.0]], [1.0])
