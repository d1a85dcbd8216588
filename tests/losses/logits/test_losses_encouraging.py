from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.losses import Encouraging, cross_entropy, encouraging_loss


def reference(logits: list[float], targets: list[float], log_end: float) -> float:
    total = 0.0
    for value, weight in zip(logits, targets, strict=True):
        p = math.exp(value) / sum(math.exp(other) for other in logits)
        tangent = math.log(1 - log_end) - (p - log_end) / (1 - log_end)
        total += weight * (-math.log(p) + (math.log(1 - p) if p <= log_end else tangent))
    return total


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 7), st.sampled_from([0.0, 0.5, 0.75, 0.99]), st.booleans(), st.integers(0, 999)
)
def test_agrees_with_the_formula(count, classes, log_end, soft, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (count,), generator=generator)
    mixed = torch.rand(count, classes, generator=generator, dtype=torch.float64).softmax(1)
    weights = mixed if soft else torch.eye(classes, dtype=torch.float64)[labels]
    expected = [reference(f, t, log_end) for f, t in zip(logits.tolist(), weights.tolist(), strict=True)]
    found = Encouraging(log_end, reduction="none")(logits, mixed if soft else labels)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_what_is_right_already_still_teaches():
    """The gradient of cross-entropy is 1 - p, that of the loss is (1 - p) + p = 1 until the bonus goes straight."""
    logits = torch.tensor([[0.9, 0.0]], requires_grad=True)
    (ours,) = torch.autograd.grad(encouraging_loss(logits, torch.tensor([0])), logits)
    (plain,) = torch.autograd.grad(cross_entropy(logits, torch.tensor([0])), logits)
    torch.testing.assert_close(ours, torch.tensor([[-1.0, 1.0]]))
    assert plain.abs().max() < 0.3


def test_gradient_is_finite_at_certainty():
    logits = torch.tensor([[50.0, -50.0]], requires_grad=True)
    encouraging_loss(logits, torch.tensor([0])).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("log_end", [-0.1, 1.0, math.nan])
def test_log_end_out_of_range(log_end):
    with pytest.raises(ValueError, match="log_end must lie in"):
        Encouraging(log_end)
