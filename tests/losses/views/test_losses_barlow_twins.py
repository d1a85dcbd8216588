from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.losses import BarlowTwins, barlow_twins_loss


def standardised(z):
    return (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt()


def reference(x, y, weight):
    x, y = standardised(x), standardised(y)
    total = 0.0
    for j in range(x.shape[1]):
        for k in range(x.shape[1]):
            correlation = sum(float(x[i, j]) * float(y[i, k]) for i in range(len(x))) / len(x)
            total += (1 - correlation) ** 2 if j == k else weight * correlation**2
    return total


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 7), width=st.integers(1, 5), weight=st.sampled_from([0.0, 0.005, 2.0]), seed=st.integers(0, 99)
)
def test_is_the_paper(rows, width, weight, seed):
    generator = torch.Generator().manual_seed(seed)
    x, y, z = (torch.randn(rows, width, generator=generator, dtype=torch.float64) for _ in range(3))
    loss = barlow_twins_loss(x, y, off_diagonal_weight=weight)
    assert float(loss) == pytest.approx(reference(x, y, weight), rel=1e-9)
    three = [reference(*pair, weight) for pair in ((x, y), (x, z), (y, z))]
    assert float(BarlowTwins(weight)(x, y, z)) == pytest.approx(sum(three) / 3, rel=1e-9)


@pytest.mark.parametrize(("rows", "width"), [(7, 3), (3, 7)])
def test_gradcheck(rows, width):
    x, y = (torch.randn(rows, width, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(barlow_twins_loss, (x, y))


def test_scale_and_shift_of_a_feature_do_not_matter():
    x, y = torch.randn(9, 3, dtype=torch.float64), torch.randn(9, 3, dtype=torch.float64)
    changed = 4.0 + x * torch.tensor([1e3, 1e2, 1e4])
    torch.testing.assert_close(barlow_twins_loss(changed, y), barlow_twins_loss(x, y), rtol=1e-4, atol=1e-4)
