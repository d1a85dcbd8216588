"""The closed form of the two Gaussians: where the threshold lies and how often it errs, against numbers by hand."""

from __future__ import annotations

import math

import pytest
import torch

from repertoire.claims import Budget
from repertoire.claims.long_tail import imbalanced_semi_self as claims


def test_the_threshold_is_the_midpoint_where_both_groups_are_named_alike():
    assert claims.midpoint(0.7, 0.7, 3.0, 1.0) == 2.0
    # Of the upper group all is right, of the lower one half: its mean is 2, that of the upper 3.
    assert claims.midpoint(1.0, 0.5, 3.0, 1.0) == pytest.approx((3 + (0.5 * 1 + 0.5 * 3)) / 2)


def test_the_error_is_the_integral_of_the_tails():
    steps = torch.linspace(-12, 12, 240_001, dtype=torch.float64)

    def density(x: torch.Tensor, mean: float) -> torch.Tensor:
        return (-((x - mean) ** 2) / (2 * 1.5**2)).exp() / (1.5 * math.sqrt(2 * math.pi))

    for threshold in (-0.5, 0.0, 0.8):
        missed = torch.trapezoid(density(steps, 1.0) * (steps < threshold), steps)
        wrong = torch.trapezoid(density(steps, -1.0) * (steps >= threshold), steps)
        assert claims.error(threshold, 1.0, -1.0, 1.5) == pytest.approx(float(missed + wrong) / 2, abs=1e-4)


def test_the_simulation_agrees_and_keeps_the_bound():
    found = claims.two_gaussians(Budget("smoke"), 0)
    assert 0 < found.method < 0.02
    assert found.extra["share of the trials outside of the bound of 5 %"] <= 0.05


def test_the_bed_has_a_tail_and_a_pool_without():
    splits = claims.tailed(0, Budget("smoke"), 1.0)
    labelled, others = splits.train.counts(), splits.extra["unlabelled"].counts()
    assert labelled[0] == 10
    assert labelled[-1] == 1
    assert others.max() - others.min() <= 1
