from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ShapeError
from repertoire.losses import consolidate_, consolidation

STRENGTHS = [0.0, 0.3, 2.0, 1e6, math.inf]


def some(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight, anchor = torch.randn(2, count, generator=generator, dtype=torch.float64)
    strength = torch.tensor(STRENGTHS)[torch.randint(0, 5, (count,), generator=generator)]
    return weight, anchor, strength


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9), st.integers(0, 999))
def test_is_the_sum_over_what_is_held_and_not_frozen(count, seed):
    weight, anchor, strength = some(seed, count)
    triples = zip(weight.tolist(), anchor.tolist(), strength.tolist(), strict=True)
    expected = sum(b * (w - a) ** 2 for w, a, b in triples if b < math.inf)
    assert float(consolidation([weight], [anchor], [strength])) == pytest.approx(expected)


def test_its_gradient_is_finite_where_a_weight_is_frozen():
    weight, anchor = torch.ones(3, requires_grad=True), torch.zeros(3)
    consolidation([weight], [anchor], [torch.tensor([1.0, math.inf, 0.0])]).backward()
    assert weight.grad.tolist() == [2.0, 0.0, 0.0]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(0, 999), st.sampled_from([1e-3, 0.1, 10.0]))
def test_the_proximal_step_ends_where_both_pulls_are_equal(count, seed, rate):
    weight, anchor, strength = some(seed, count)
    moved = weight.clone()
    consolidate_([moved], [anchor], [strength], rate)
    free = strength < math.inf
    # The slope of (v - w)² / (2 rate) + b (v - a)² is zero.
    slope = (moved - weight) / rate + 2 * strength * (moved - anchor)
    torch.testing.assert_close(slope[free] / (1 + strength[free]), torch.zeros_like(slope[free]), rtol=0, atol=1e-6)
    assert torch.equal(moved[~free], anchor[~free])


def test_one_number_is_a_strength_for_all():
    weight, anchor, _ = some(0, 6)
    every = consolidation([weight], [anchor], [torch.full((6,), 0.5)])
    torch.testing.assert_close(consolidation([weight], [anchor], [0.5]), every)
    consolidate_([weight], [anchor], [math.inf])
    assert torch.equal(weight, anchor)


@pytest.mark.parametrize(
    ("anchors", "strengths", "message"),
    [
        ([], [1.0], "must be as many"),
        ([torch.zeros(2)], [1.0], "anchor 0 must be"),
        ([torch.zeros(3)], [torch.ones(2)], "strength 0 must be"),
        ([torch.zeros(3)], [torch.ones(2, 3)], "strength 0 must be"),
    ],
)
def test_what_does_not_fit(anchors, strengths, message):
    with pytest.raises(ShapeError, match=message):
        consolidation([torch.zeros(3)], anchors, strengths)
