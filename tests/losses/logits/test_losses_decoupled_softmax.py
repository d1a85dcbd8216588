from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ShapeError
from repertoire.losses import DecoupledSoftmax, cross_entropy, decoupled_softmax_loss


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5),
    classes=st.integers(1, 6),
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
    seed=st.integers(0, 1000),
)
def test_is_the_formula(rows, classes, temperature, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64) * 3
    targets = torch.randint(2, (rows, classes), generator=generator)
    expected = []
    for row, labels in zip(logits.tolist(), targets.tolist(), strict=True):
        exponentials = [math.exp(f / temperature) for f in row]
        absent = sum(e for e, y in zip(exponentials, labels, strict=True) if not y)
        expected.append(-sum(math.log(e / (e + absent)) for e, y in zip(exponentials, labels, strict=True) if y))
    losses = DecoupledSoftmax(temperature, reduction="none")(logits, targets)
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(decoupled_softmax_loss(logits, targets, temperature=temperature), losses.mean())


def test_with_one_label_it_is_cross_entropy():
    logits, classes = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 3])
    found = decoupled_softmax_loss(logits, torch.eye(4)[classes])
    torch.testing.assert_close(found, cross_entropy(logits, classes))


def test_labels_of_a_sample_do_not_compete():
    """Raising one label's logit leaves the gradient of another label as it was."""
    gradients = []
    for first in (0.0, 5.0):
        logits = torch.tensor([[first, 1.0, 0.5]], requires_grad=True)
        decoupled_softmax_loss(logits, torch.tensor([[1, 1, 0]])).backward()
        gradients.append(logits.grad[0, 1])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("magnitude", [1.0, 1e4])
@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1]])
def test_none_or_all_of_the_labels_is_zero_without_gradient(labels, magnitude):
    logits = (torch.tensor([[1.0, -2.0, 0.5]]) * magnitude).requires_grad_()
    loss = decoupled_softmax_loss(logits, torch.tensor([labels]))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_gradcheck():
    logits = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    assert torch.autograd.gradcheck(lambda f: decoupled_softmax_loss(f, targets, temperature=0.5), (logits,))


def test_soft_labels_and_temperatures_out_of_range():
    with pytest.raises(ShapeError, match=r"targets must be 0 or 1, .*found 0.5"):
        decoupled_softmax_loss(torch.zeros(1, 2), torch.tensor([[0.5, 1.0]]))
    with pytest.raises(ValueError, match="temperature must be positive, found 0"):
        DecoupledSoftmax(0.0)
