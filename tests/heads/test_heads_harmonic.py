"""The harmonic classifier against the formula of its paper, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.heads import Harmonic
from repertoire.losses import cross_entropy


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 5), st.sampled_from([None, 1.0, 6.0]), st.integers(0, 99))
def test_equals_the_formula(rows, width, classes, exponent, seed):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    head = Harmonic(width, classes, exponent=exponent, eps=1e-12).double()
    targets = torch.randint(classes, (rows,), generator=generator)
    n = math.sqrt(width) if exponent is None else exponent
    expected = []
    for row, y in zip(z.tolist(), targets.tolist(), strict=True):
        powers = [math.dist(row, w) ** -n for w in head.weight.tolist()]
        expected.append(-math.log(powers[y] / sum(powers)))
    found = cross_entropy(head(z), targets, reduction="none").detach()
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-8)


def test_scale_of_both_sides_does_not_matter():
    head, z = Harmonic(6, 4, eps=1e-12).double(), torch.randn(5, 6, dtype=torch.float64)
    before = head(z).softmax(1)
    with torch.no_grad():
        head.weight.mul_(100)
    torch.testing.assert_close(head(100 * z).softmax(1), before)


def test_a_feature_on_a_centre_has_a_finite_gradient():
    head = Harmonic(4, 3)
    z = head.weight.detach().clone().requires_grad_()
    cross_entropy(head(z), torch.tensor([0, 1, 1])).backward()
    assert z.grad.isfinite().all()
    assert head.weight.grad.isfinite().all()


def test_the_loss_vanishes_at_finite_weights():
    """Where each feature is on its class vector; a linear classifier would need weights without bound."""
    head = Harmonic(16, 3)
    with torch.no_grad():
        head.weight.copy_(torch.eye(3, 16) * 2)
    assert cross_entropy(head(head.weight), torch.arange(3)) < 1e-8


def test_gradcheck():
    torch.manual_seed(0)
    head = Harmonic(4, 3).double()
    z = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(head, (z,))


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("option", ["exponent", "eps"])
def test_options_out_of_range(option, value):
    with pytest.raises(ValueError, match=rf"{option} must be (positive|a finite number)"):
        Harmonic(4, 2, **{option: value})


@pytest.mark.parametrize("radius", [1.0, 100.0, 1000.0])
def test_short_distances_of_long_vectors_keep_their_digits(radius):
    generator = torch.Generator().manual_seed(0)
    head = Harmonic(16, 3)
    centres = radius * torch.nn.functional.normalize(torch.randn(3, 16, generator=generator))
    steps = 0.05 * torch.nn.functional.normalize(torch.randn(64, 16, generator=generator))
    with torch.no_grad():
        head.weight.copy_(centres)
    z = (centres[torch.arange(64) % 3] + steps).requires_grad_()
    logits = head(z)
    exact_z = z.detach().double().requires_grad_()
    exact = Harmonic(16, 3).double()
    with torch.no_grad():
        exact.weight.copy_(head.weight)
    expected = exact(exact_z)
    torch.testing.assert_close(logits, expected.float(), rtol=1e-4, atol=1e-3)
    (found,), (right,) = torch.autograd.grad(logits.sum(), z), torch.autograd.grad(expected.sum(), exact_z)
    torch.testing.assert_close(found, right.float(), rtol=2e-2, atol=1e-2 * float(right.abs().max()))
