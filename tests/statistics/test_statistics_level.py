"""The level of a look: what it comes to over all looks."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtr

from repertoire.statistics import LOOKS, NOMINAL


def _error(level: float) -> float:
    """How often normal seeds without an effect are told from it at one of the looks, to either side."""
    seeds = np.random.default_rng(0).standard_normal((100_000, max(LOOKS)))
    told = np.zeros(len(seeds), dtype=bool)
    for look in LOOKS:
        seen = seeds[:, :look]
        t = np.abs(seen.mean(1)) / (seen.std(1, ddof=1) / np.sqrt(look))
        told |= 2 * stdtr(look - 1, -t) < level
    return float(told.mean())


def test_the_looks_together_have_an_error_of_five_percent():
    assert abs(_error(NOMINAL) - 0.05) < 0.0021, "three standard errors"


def test_the_level_for_a_known_variance_is_too_large_for_t_tests():
    assert _error(0.0221) > 0.053
