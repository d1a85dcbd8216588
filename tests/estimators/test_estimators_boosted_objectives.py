"""The losses that are boosted: derivatives against autograd, constants against a search."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.estimators.boosted._objectives import Logistic, Objective, Softmax, Squared


def example(objective: Objective, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    outputs = 3 if isinstance(objective, Softmax) else 1
    scores = 3 * torch.randn(count, outputs, generator=generator, dtype=torch.float64)
    if isinstance(objective, Squared):
        return torch.randn(count, 1, generator=generator, dtype=torch.float64), scores
    labels = torch.randint(0, max(2, outputs), (count,), generator=generator)
    if isinstance(objective, Logistic):
        return labels[:, None].double(), scores
    return torch.eye(3, dtype=torch.float64)[labels], scores


@pytest.mark.parametrize("objective", [Squared(), Logistic(), Softmax()], ids=lambda o: type(o).__name__)
@given(st.integers(1, 6), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_derivatives(objective, count, seed):
    targets, scores = example(objective, count, seed)
    scores.requires_grad_(True)
    total = objective.loss(targets, scores) * count
    (gradient,) = torch.autograd.grad(total, scores, create_graph=True)
    torch.testing.assert_close(objective.residuals(targets, scores), -gradient)
    for row in range(count):
        for column in range(scores.shape[1]):
            second = torch.autograd.grad(gradient[row, column], scores, retain_graph=True)[0][row, column]
            torch.testing.assert_close(objective.curvature(targets, scores)[row, column], second)


@pytest.mark.parametrize("objective", [Squared(), Logistic(), Softmax()], ids=lambda o: type(o).__name__)
def test_no_other_constant_is_better(objective):
    targets, _ = example(objective, 40, 0)
    constant = objective.constant(targets)
    best = objective.loss(targets, constant.expand(40, -1))
    for step in torch.randn(50, len(constant), generator=torch.Generator().manual_seed(0), dtype=torch.float64):
        assert objective.loss(targets, (constant + 0.3 * step).expand(40, -1)) >= best - 1e-12


@pytest.mark.parametrize("objective", [Logistic(), Softmax()], ids=lambda o: type(o).__name__)
def test_extreme_scores_are_finite(objective):
    targets, scores = example(objective, 5, 0)
    for size in (1e3, 1e8):
        far = scores.sign() * size
        for value in (
            objective.loss(targets, far),
            objective.residuals(targets, far),
            objective.curvature(targets, far),
        ):
            assert value.isfinite().all()


def test_a_class_that_is_absent_has_a_finite_constant():
    targets = torch.eye(3, dtype=torch.float64)[torch.tensor([0, 0, 2])]
    assert Softmax().constant(targets).isfinite().all()
    assert Logistic().constant(torch.ones(3, 1, dtype=torch.float64)).isfinite().all()
