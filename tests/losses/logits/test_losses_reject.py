from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from repertoire import registry
from repertoire.errors import ConfigError
from repertoire.losses import Reject, reject_loss


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5),
    predictors=st.integers(1, 3),
    cost=st.sampled_from([0.1, 0.3, 0.9]),
    alpha=st.sampled_from([1.0, 2.0, 4.0]),
    seed=st.integers(0, 1000),
)
def test_is_the_formula(rows, predictors, cost, alpha, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(rows, predictors, generator=generator, dtype=torch.float64) - 0.5
    right = torch.randint(2, (rows, predictors), generator=generator)
    beta = alpha / 2 * (math.exp(alpha / 2) + (1 - cost) / cost * math.exp(-alpha / 2))
    expected = [
        sum(
            math.exp(alpha / 2 * (r - (1 if a else -1))) + cost * math.exp(-beta * r)
            for r, a in zip(row, labels, strict=True)
        )
        for row, labels in zip(scores.tolist(), right.tolist(), strict=True)
    ]
    losses = Reject(cost, alpha, reduction="none")(scores, right)
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(reject_loss(scores, right, cost=cost, alpha=alpha), losses.mean())


@settings(max_examples=25, deadline=None)
@given(cost=st.floats(0.02, 0.9), alpha=st.floats(0.5, 15), error=st.floats(0.0, 1.0))
def test_the_best_score_is_positive_where_errors_are_rarer_than_the_cost(cost, alpha, error):
    assume(abs(error - cost) > 0.01)
    right = torch.tensor([[0.0], [1.0]], dtype=torch.float64)

    def expected_loss(score):
        scores = torch.full((2, 1), score, dtype=torch.float64)
        of_wrong, of_right = reject_loss(scores, right, cost=cost, alpha=alpha, reduction="none").tolist()
        return error * of_wrong + (1 - error) * of_right

    best = minimize_scalar(expected_loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x
    assert (best > 0) == (error < cost)


def test_it_bounds_the_cost_of_accepting_and_rejecting():
    scores = torch.linspace(-3, 3, 61)[:, None]
    for right in (0.0, 1.0):
        true_cost = torch.where(scores > 0, 1 - right, 0.2)[:, 0]
        surrogate = reject_loss(scores, torch.full_like(scores, right), cost=0.2, reduction="none")
        assert (surrogate >= true_cost - 1e-6).all()


def test_far_scores_are_finite_and_convex():
    scores = torch.linspace(-1e3, 1e3, 20001, dtype=torch.float64)[:, None].requires_grad_()
    loss = reject_loss(scores, torch.zeros_like(scores), cost=0.05, reduction="sum")
    (slope,) = torch.autograd.grad(loss, scores)
    assert slope.isfinite().all()
    assert (slope[1:] >= slope[:-1] - 1e-9).all()


def test_gradcheck():
    scores = torch.tensor([[0.3], [-0.2], [20.0], [-20.0]], dtype=torch.float64, requires_grad=True)
    right = torch.tensor([[1], [0], [0], [1]])
    assert torch.autograd.gradcheck(lambda r: reject_loss(r, right, alpha=2.0), (scores,))


@pytest.mark.parametrize("option", ["cost=0", "cost=1", "cost=nan", "alpha=0", "alpha=21"])
def test_options_out_of_range(option):
    with pytest.raises(ConfigError, match=f"{option.split('=')[0]} must lie in"):
        registry.build("losses", f"reject:{option}")
