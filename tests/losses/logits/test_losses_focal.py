from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.losses import Focal, cross_entropy, focal_loss


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5),
    classes=st.integers(2, 5),
    gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]),
    weighted=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_is_the_formula(rows, classes, gamma, weighted, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64) * 3
    targets = torch.randint(classes, (rows,), generator=generator)
    weight = torch.rand(classes, generator=generator, dtype=torch.float64)
    expected = []
    for row, y in zip(logits.tolist(), targets.tolist(), strict=True):
        p = math.exp(row[y]) / sum(math.exp(f) for f in row)
        expected.append(-(float(weight[y]) if weighted else 1.0) * (1 - p) ** gamma * math.log(p))
    module = Focal(gamma, weight if weighted else None, reduction="none")
    losses = module(logits, targets)
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))
    mean = focal_loss(logits, targets, gamma=gamma, weight=weight if weighted else None)
    torch.testing.assert_close(mean, losses.mean())


def test_gamma_zero_is_cross_entropy():
    logits, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    torch.testing.assert_close(focal_loss(logits, targets, gamma=0.0), cross_entropy(logits, targets))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_certain_samples_have_finite_gradients(gamma):
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)  # right and wrong, with p = 1 and p = 0
    loss = focal_loss(logits, torch.tensor([0, 0]), gamma=gamma, reduction="none")
    loss.sum().backward()
    torch.testing.assert_close(loss, torch.tensor([0.0, 200.0]))
    assert logits.grad.isfinite().all()


def test_gradcheck_through_the_power():
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: focal_loss(f, torch.tensor([0, 1, 2]), gamma=1.5), (logits,))


def test_negative_gamma():
    with pytest.raises(ValueError, match="gamma must be 0 or more, found -1"):
        Focal(-1.0)
