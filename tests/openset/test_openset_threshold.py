from __future__ import annotations

import numpy as np
import pytest

from repertoire.errors import ConfigError, ShapeError
from repertoire.openset import false_alarm_range, threshold


@pytest.mark.parametrize(("count", "alpha"), [(19, 0.05), (60, 0.05), (200, 0.1), (33, 0.25)])
def test_false_alarms_are_what_is_promised_over_2000_splits(count, alpha):
    """P(s < t) lies between alpha - 1 / (n + 1) and alpha, whatever the distribution of the scores."""
    generator = np.random.default_rng(count)
    scores = generator.standard_t(2, size=(2000, count + 50)) ** 3
    found = np.array([(row[count:] < threshold(row[:count], alpha)).mean() for row in scores])
    noise = 4 * found.std() / np.sqrt(len(found))
    rank = np.floor(alpha * (count + 1) + 1e-9)
    assert found.mean() == pytest.approx(rank / (count + 1), abs=noise)
    assert found.mean() <= alpha + noise


def test_ties_only_lower_the_false_alarms():
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 4, size=(2000, 150)).astype(float)
    found = [(row[100:] < threshold(row[:100], 0.3)).mean() for row in scores]
    assert np.mean(found) <= 0.3


def test_range_of_one_validation_set():
    """The share of false alarms of 1,000 validation sets, against an endless supply of new samples."""
    generator = np.random.default_rng(1)
    shares = [threshold(row, 0.1) for row in generator.uniform(size=(1000, 80))]  # of uniform scores, P(s < t) = t
    low, high = false_alarm_range(80, 0.1, confidence=0.8)
    assert np.quantile(shares, [0.1, 0.9]) == pytest.approx([low, high], abs=0.01)


def test_too_few_samples_promise_nothing():
    with pytest.raises(ConfigError, match=r"18 validation samples are too few for 0\.05 false alarms: it takes 19"):
        threshold(np.zeros(18), 0.05)
    with pytest.raises(ConfigError, match="too few"):
        false_alarm_range(18, 0.05)
    assert threshold(np.arange(19.0), 0.05) == 0.0


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0])
def test_share_out_of_range(alpha):
    with pytest.raises(ConfigError, match="false_alarms must lie in"):
        threshold(np.zeros(100), alpha)


def test_scores_that_are_no_numbers():
    with pytest.raises(ShapeError, match="none of them NaN"):
        threshold([0.0, np.nan])
