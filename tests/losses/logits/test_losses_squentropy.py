from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.losses import Squentropy, squentropy


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 5), classes=st.integers(2, 6), seed=st.integers(0, 1000))
def test_is_the_formula(rows, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64) * 3
    targets = torch.randint(classes, (rows,), generator=generator)
    expected = []
    for row, y in zip(logits.tolist(), targets.tolist(), strict=True):
        entropy = -math.log(math.exp(row[y]) / sum(math.exp(f) for f in row))
        expected.append(entropy + sum(f * f for j, f in enumerate(row) if j != y) / (classes - 1))
    losses = squentropy(logits, targets, reduction="none")
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(Squentropy()(logits, targets), losses.mean())
    torch.testing.assert_close(Squentropy("sum")(logits, targets), losses.sum())


def test_gradient_reaches_the_right_logit_through_cross_entropy_only():
    logits = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    squentropy(logits, torch.tensor([0])).backward()
    expected = logits.detach().softmax(1) + torch.tensor([[-1.0, -1.0, 0.5]])  # 2 f_j / (C - 1) for the wrong ones
    torch.testing.assert_close(logits.grad, expected)


def test_a_single_class_has_no_loss():
    assert squentropy(torch.tensor([[5.0]]), torch.tensor([0])) == 0


def test_half_precision_squares_are_float32():
    loss = squentropy(torch.tensor([[0.0, 300.0]], dtype=torch.float16), torch.tensor([0]))  # 300² is no half
    torch.testing.assert_close(loss, torch.tensor(90300.0))
