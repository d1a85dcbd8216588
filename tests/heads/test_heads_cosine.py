"""The cosine classifier against the formula of its paper, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.heads import Cosine


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 6), st.integers(1, 9), st.integers(1, 5), st.floats(0.1, 50), st.integers(0, 99))
def test_equals_the_formula(rows, width, classes, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    head = Cosine(width, classes, scale=scale).double()
    logits = head(z).detach()
    assert logits.shape == (rows, classes)
    for i in range(rows):
        for k in range(classes):
            w = head.weight[k].tolist()
            dot = sum(a * b for a, b in zip(z[i].tolist(), w, strict=True))
            expected = scale * dot / math.hypot(*z[i].tolist()) / math.hypot(*w)
            assert float(logits[i, k]) == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_length_of_neither_side_matters():
    head, z = Cosine(8, 3), torch.randn(4, 8)
    before = head(z)
    with torch.no_grad():
        head.weight.mul_(torch.tensor([[0.1], [3.0], [100.0]]))
    torch.testing.assert_close(head(z * 7), before, rtol=1e-4, atol=1e-4)


def test_the_scale_is_learned_unless_told_otherwise():
    head, fixed = Cosine(4, 2, scale=5.0), Cosine(4, 2, scale=5.0, learn_scale=False)
    assert {name for name, _ in head.named_parameters()} == {"weight", "log_scale"}
    assert {name for name, _ in fixed.named_parameters()} == {"weight"}
    assert set(fixed.state_dict()) == set(head.state_dict())
    assert float(head.scale.detach()) == pytest.approx(5.0)
    head(torch.randn(3, 4)).square().sum().backward()
    assert head.log_scale.grad != 0


def test_a_zero_vector_has_zero_logits_and_a_finite_gradient():
    z = torch.zeros(2, 4, requires_grad=True)
    logits = Cosine(4, 3)(z)
    assert not logits.any()
    logits.sum().backward()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_scale_out_of_range(scale):
    with pytest.raises(ValueError, match=r"scale must be (positive|a finite number)"):
        Cosine(4, 2, scale=scale)
