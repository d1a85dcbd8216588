from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire import registry
from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import EnsLoss, ens_loss, ens_loss_slopes


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 50), st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from([0.1, 1.0, 30.0]), st.integers(0, 999))
def test_slopes_are_those_of_a_convex_calibrated_loss(count, power, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    margins = spread * torch.randn(count, generator=generator, dtype=torch.float64)
    slopes = ens_loss_slopes(margins, power=power, generator=generator)
    ordered = slopes[margins.argsort()].tolist()
    assert all(a <= b for a, b in itertools.pairwise(ordered))  # convex
    assert all(-1 <= slope < 0 for slope in ordered)  # falls, at zero too
    assert all(
        -slope <= 1 / margin for margin, slope in zip(margins.tolist(), slopes.tolist(), strict=True) if margin > 1
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.sampled_from([0.0, 1.0]), st.integers(0, 999))
def test_gradient_and_value_are_the_formula(rows, classes, power, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64).requires_grad_()
    targets = torch.randint(0, classes, (rows,), generator=generator)
    loss = ens_loss(logits, targets, power=power, generator=torch.Generator().manual_seed(seed), reduction="sum")
    (found,) = torch.autograd.grad(loss, logits)

    places = [(i, j) for i in range(rows) for j in range(classes) if j != targets[i]]
    values = logits.tolist()
    margins = [values[i][targets[i]] - values[i][j] for i, j in places]
    draws = torch.randn(len(places), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()
    u = sorted((max(1e-6, min(1.0, math.exp(e) if power == 0 else max(0.0, 1 + e))) for e in draws), reverse=True)
    expected, value = torch.zeros(rows, classes, dtype=torch.float64), 0.0
    for rank, place in enumerate(sorted(range(len(places)), key=margins.__getitem__)):
        (i, j), m = places[place], margins[place]
        slope = -u[rank] / max(1.0, m) / (classes - 1)
        expected[i, targets[i]] += slope
        expected[i, j] -= slope
        value += math.log1p(math.exp(-m)) / (classes - 1)
    torch.testing.assert_close(found, expected)
    assert loss.item() == pytest.approx(value)


def test_every_call_draws_another_loss_but_not_in_evaluation():
    loss, logits = EnsLoss(), torch.randn(8, 2, dtype=torch.float64, requires_grad=True)
    targets = torch.arange(8) % 2

    def gradient() -> torch.Tensor:
        return torch.autograd.grad(loss(logits, targets), logits)[0]

    assert not torch.equal(gradient(), gradient())
    torch.manual_seed(1)
    first = gradient()
    torch.manual_seed(1)
    assert torch.equal(first, gradient())
    loss.eval()
    assert torch.equal(gradient(), gradient())
    assert torch.autograd.gradcheck(lambda f: loss(f, targets), (logits,))


def test_two_classes_are_one_margin():
    """In the paper one score f stands for the pair (0, f), and the margin is f or -f."""
    scores, labels = torch.randn(20, dtype=torch.float64, requires_grad=True), torch.arange(20) % 2
    logits = torch.stack([torch.zeros_like(scores), scores], 1)
    loss = ens_loss(logits, labels, generator=torch.Generator().manual_seed(3), reduction="sum")
    (found,) = torch.autograd.grad(loss, scores)
    signs = 2.0 * labels - 1
    slopes = ens_loss_slopes((signs * scores).detach(), generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(found, signs * slopes)


def test_arguments_out_of_range():
    with pytest.raises(ConfigError, match="power must be 0 or more"):
        registry.build("losses", "ensloss:power=-1")
    with pytest.raises(ShapeError, match=r"margins must be floating point \[M\]"):
        ens_loss_slopes(torch.zeros(2, 2))
