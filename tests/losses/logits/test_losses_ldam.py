from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ShapeError
from repertoire.losses import LDAM, cross_entropy, ldam_loss


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5),
    classes=st.integers(1, 5),
    margin=st.sampled_from([0.0, 0.5, 1.0]),
    scale=st.sampled_from([1.0, 30.0]),
    seed=st.integers(0, 1000),
)
def test_is_the_formula(rows, classes, margin, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    cosines = torch.rand(rows, classes, generator=generator, dtype=torch.float64) * 2 - 1
    targets = torch.randint(classes, (rows,), generator=generator)
    counts = torch.randint(1, 1000, (classes,), generator=generator)
    unscaled = [n**-0.25 for n in counts.tolist()]
    margins = [margin * m / max(unscaled) for m in unscaled]  # the largest of them is the margin
    expected = []
    for row, y in zip(cosines.tolist(), targets.tolist(), strict=True):
        exponentials = [math.exp(scale * (f - (margins[y] if k == y else 0))) for k, f in enumerate(row)]
        expected.append(-math.log(exponentials[y] / sum(exponentials)))
    losses = LDAM(counts.double(), margin, scale, reduction="none")(cosines, targets)
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(ldam_loss(cosines, targets, counts, margin=margin, scale=scale), losses.mean())


def test_without_margin_it_is_cross_entropy():
    cosines, targets = torch.rand(3, 2), torch.tensor([0, 1, 1])
    found = ldam_loss(cosines, targets, torch.tensor([9, 1]), margin=0.0, scale=4.0)
    torch.testing.assert_close(found, cross_entropy(4 * cosines, targets))


def test_logits_are_left_as_they_are():
    cosines = torch.zeros(2, 2)
    ldam_loss(cosines, torch.tensor([0, 1]), torch.tensor([9, 1]))
    assert not cosines.any()


def test_gradcheck():
    cosines = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    counts = torch.tensor([100, 10, 5, 1])
    assert torch.autograd.gradcheck(lambda f: ldam_loss(f, torch.tensor([0, 1, 3]), counts, scale=3.0), (cosines,))


@pytest.mark.parametrize(("option", "value"), [("margin", -0.1), ("scale", 0.0), ("scale", math.nan)])
def test_options_out_of_range(option, value):
    with pytest.raises(ValueError, match=f"{option} must be"):
        LDAM([2, 1], **{option: value})
    with pytest.raises(ShapeError, match="all positive"):
        LDAM([2, 0])
