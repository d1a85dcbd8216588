from __future__ import annotations

import itertools

import numpy as np
import pytest

from repertoire.errors import ConfigError
from repertoire.openset import COVERAGES, detection

GENERATOR = np.random.default_rng(0)
KNOWN, UNKNOWN = GENERATOR.normal(size=60) + 1, GENERATOR.normal(size=40)
CORRECT = GENERATOR.uniform(size=60) < 0.8


def test_against_loops_over_pairs():
    found = detection(KNOWN, CORRECT, UNKNOWN, repetitions=2)
    pairs = list(itertools.product(range(60), range(40)))
    assert found.auroc == pytest.approx(np.mean([KNOWN[i] > UNKNOWN[j] for i, j in pairs]))
    assert found.oscr == pytest.approx(np.mean([CORRECT[i] and KNOWN[i] > UNKNOWN[j] for i, j in pairs]))
    line = sorted(KNOWN)[3]  # 57 of 60 lie on it or above
    assert found.fpr95 == pytest.approx(np.mean([value >= line for value in UNKNOWN]))
    errors = sorted(zip(np.append(KNOWN, UNKNOWN), np.append(~CORRECT, np.ones(40)), strict=True), reverse=True)
    risks = [sum(wrong for _, wrong in errors[:n]) / n for n in range(1, 101)]
    assert found.aurc == pytest.approx(np.mean(risks))
    assert found.risk == pytest.approx([risks[round(100 * share) - 1] for share in COVERAGES])
    assert (found.known, found.unknown) == (60, 40)


def test_order_alone_counts():
    """A monotone transform of the scores changes nothing."""
    plain, bent = (detection(f(KNOWN), CORRECT, f(UNKNOWN), repetitions=5) for f in (np.array, np.exp))
    assert plain == bent


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Two normal distributions one standard deviation apart: AUROC 0.760."""
    generator = np.random.default_rng(3)
    hits = 0
    for _ in range(40):
        known, unknown = generator.normal(size=60) + 1, generator.normal(size=60)
        low, high = detection(known, np.ones(60, bool), unknown, repetitions=40).intervals["auroc"]
        hits += low <= 0.7602 <= high
    assert hits >= 33  # fewer of 40 at 95 % happen once in a thousand times


@pytest.mark.parametrize(("known", "unknown", "said"), [(0, 40, "no known"), (60, 0, "no unknown")])
def test_nothing_to_tell_apart(known, unknown, said):
    with pytest.raises(ConfigError, match=said):
        detection(KNOWN[:known], CORRECT[:known], UNKNOWN[:unknown])
