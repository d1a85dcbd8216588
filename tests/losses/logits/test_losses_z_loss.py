from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ShapeError
from repertoire.losses import ZLoss, z_loss


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5),
    classes=st.integers(3, 8),
    a=st.sampled_from([0.1, 1.0, 5.0]),
    b=st.sampled_from([-1.0, 0.0, 3.0, 28.0]),
    seed=st.integers(0, 1000),
)
def test_is_the_formula(rows, classes, a, b, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64) * 3 + 1
    targets = torch.randint(classes, (rows,), generator=generator)
    expected = []
    for row, y in zip(logits.tolist(), targets.tolist(), strict=True):
        z = (row[y] - statistics.fmean(row)) / statistics.pstdev(row)
        expected.append(math.log(1 + math.exp(a * (b - z))) / a)
    losses = ZLoss(a, b, reduction="none")(logits, targets)
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(z_loss(logits, targets, a=a, b=b), losses.mean())


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100), seed=st.integers(0, 100))
def test_shift_and_scale_change_nothing(scale, shift, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    targets = torch.tensor([0, 1, 2, 4])
    torch.testing.assert_close(z_loss(scale * logits + shift, targets), z_loss(logits, targets))


def test_gradient_is_orthogonal_to_shift_and_scale():
    logits = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    z_loss(logits, torch.tensor([0, 1, 2])).backward()
    torch.testing.assert_close(logits.grad.sum(1), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close((logits.grad * logits.detach()).sum(1), torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("magnitude", [1e-30, 1.0, 1e30])
def test_squares_neither_overflow_nor_vanish(magnitude):
    logits = torch.tensor([[5.0, 1.0, 1.0]]) * magnitude
    loss = z_loss(logits, torch.tensor([0]), b=math.sqrt(2))  # z is the square root of C - 1
    torch.testing.assert_close(loss, torch.tensor(math.log(2)))


def test_equal_logits_have_no_gradient():
    logits = torch.full((2, 4), 3.0, requires_grad=True)
    loss = z_loss(logits, torch.tensor([0, 1]), b=0.0)
    loss.backward()
    torch.testing.assert_close(loss, torch.tensor(math.log(2)))
    assert not logits.grad.any()


def test_gradcheck():
    logits = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: z_loss(f, torch.tensor([0, 4, 2]), a=2.0, b=0.5), (logits,))


def test_two_classes_and_a_out_of_range():
    with pytest.raises(ShapeError, match="needs three classes or more"):
        z_loss(torch.zeros(2, 2), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="a must be positive, found 0"):
        ZLoss(a=0.0)
