from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import SinglePositive, asymmetric_pseudo_labels, single_positive_loss


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5),
    classes=st.integers(1, 6),
    alpha=st.sampled_from([0.0, 0.1, 1.0]),
    beta=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 1000),
)
def test_is_the_formula(rows, classes, alpha, beta, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64) * 3
    kind = torch.randint(3, (rows, classes), generator=generator)
    soft = torch.rand(rows, classes, generator=generator, dtype=torch.float64)
    targets = torch.where(kind == 2, -soft, kind.double())
    expected = []
    for row, labels in zip(logits.tolist(), targets.tolist(), strict=True):
        loss = 0.0
        for f, t in zip(row, labels, strict=True):
            p = 1 / (1 + math.exp(-f))
            if t == 1:
                loss -= math.log(p)
            elif t == 0:
                loss -= alpha * (-p * math.log(p) - (1 - p) * math.log(1 - p))
            else:
                loss += beta * (t * math.log(p) - (1 + t) * math.log(1 - p))
        expected.append(loss / classes)
    losses = SinglePositive(alpha, beta, reduction="none")(logits, targets)
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(single_positive_loss(logits, targets, alpha=alpha, beta=beta), losses.mean())


def test_an_unknown_label_is_pulled_towards_indecision():
    logits = torch.tensor([[-2.0, 0.0, 2.0]], requires_grad=True)
    single_positive_loss(logits, torch.zeros(1, 3)).backward()
    assert logits.grad.sign().tolist() == [[-1.0, 0.0, 1.0]]


def test_a_pseudo_label_is_fitted_at_its_probability():
    logits = torch.tensor([[math.log(0.2 / 0.8)]], dtype=torch.float64, requires_grad=True)
    single_positive_loss(logits, torch.tensor([[-0.2]], dtype=torch.float64)).backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits))


def test_gradcheck_and_far_logits():
    targets = torch.tensor([[1.0, 0.0, -0.3], [0.0, -1.0, 1.0]], dtype=torch.float64)
    logits = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: single_positive_loss(f, targets), (logits,))
    far = torch.full((2, 3), -1e4, requires_grad=True)
    single_positive_loss(far, targets).backward()
    assert far.grad.isfinite().all()


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(0, 9),
    classes=st.integers(1, 3),
    share=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    seed=st.integers(0, 500),
)
def test_pseudo_labels_go_to_the_least_likely_unknown(rows, classes, share, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator)
    kind = torch.randint(3, (rows, classes), generator=generator)
    targets = torch.where(kind == 2, -0.25, kind.float())
    expected = targets.clone()
    for c in range(classes):
        unknown = sorted((float(logits[i, c]), i) for i in range(rows) if targets[i, c] == 0)
        count = int(sum(float(t) <= 0 for t in targets[:, c]) * share)
        for f, i in unknown[:count]:
            expected[i, c] = -1 / (1 + math.exp(-f))
    torch.testing.assert_close(asymmetric_pseudo_labels(logits, targets, share=share), expected)


def test_all_unknown_labels_are_assigned_in_the_end():
    logits, targets = torch.randn(10, 2), torch.zeros(10, 2)
    targets[0] = 1.0
    for _ in range(3):
        before = targets
        targets = asymmetric_pseudo_labels(logits, targets, share=1 / 3)
        assert ((before != targets).sum(0) == 3).all()
    assert (targets[1:] < 0).all()
    assert (targets[0] == 1).all()


def test_an_impossible_label_does_not_stay_unknown():
    assert asymmetric_pseudo_labels(torch.tensor([[-500.0]]), torch.zeros(1, 1), share=1.0) < 0


def test_arguments_out_of_range():
    with pytest.raises(ShapeError, match=r"targets must lie in \[-1, 1\], .*found -2"):
        single_positive_loss(torch.zeros(1, 1), torch.tensor([[-2.0]]))
    with pytest.raises(ConfigError, match=r"share must lie in \[0, 1\], found 2"):
        asymmetric_pseudo_labels(torch.zeros(1, 1), torch.zeros(1, 1), share=2)
    with pytest.raises(ShapeError, match="targets must be floating point to hold pseudo-labels"):
        asymmetric_pseudo_labels(torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.int64), share=0.5)
    with pytest.raises(ValueError, match="alpha must be 0 or more"):
        SinglePositive(alpha=-0.1)
