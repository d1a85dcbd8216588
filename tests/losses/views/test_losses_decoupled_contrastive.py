"""The decoupled contrastive loss against its definition, a pair at a time."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.losses import DecoupledContrastive, decoupled_contrastive_loss


def reference(views: list[Tensor], tau: float) -> float:
    z = [F.normalize(view.double(), dim=1) for view in views]
    count, samples = len(z), len(z[0])
    total = 0.0
    for a in range(count):
        for i in range(samples):
            negatives = sum(
                math.exp(float(z[a][i] @ z[b][j]) / tau) for b in range(count) for j in range(samples) if j != i
            )
            positives = [float(z[a][i] @ z[b][i]) / tau for b in range(count) if b != a]
            total += math.log(negatives) - sum(positives) / len(positives)
    return total / (count * samples)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.integers(1, 6), st.integers(2, 3), st.floats(0.05, 2.0), st.integers(0, 99))
def test_equals_the_definition(samples, width, count, tau, seed):
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randn(samples, width, generator=generator, dtype=torch.float64) for _ in range(count)]
    assert float(decoupled_contrastive_loss(*views, temperature=tau)) == pytest.approx(reference(views, tau), rel=1e-6)
    torch.testing.assert_close(DecoupledContrastive(tau)(*views), decoupled_contrastive_loss(*views, temperature=tau))


def test_gradient():
    views = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda *v: decoupled_contrastive_loss(*v, temperature=0.5), views)


def test_the_pull_of_a_positive_does_not_fade():
    """What the paper takes out of NT-Xent: there the gradient vanishes as a pair of views comes together."""
    anchor = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    other = torch.tensor([[1.0, 1e-3], [1e-3, 1.0]], dtype=torch.float64, requires_grad=True)
    decoupled_contrastive_loss(anchor, other, temperature=0.1).backward()
    alone = other.grad.clone()
    assert float(alone.norm()) > 0.1 * float(torch.autograd.grad(-(anchor * F.normalize(other)).sum(), other)[0].norm())


def test_one_sample_has_no_negatives_and_views_must_fit():
    view = torch.randn(1, 3, requires_grad=True)
    loss = decoupled_contrastive_loss(view, torch.randn(1, 3))
    loss.backward()
    assert float(loss) == 0
    assert not view.grad.any()
    with pytest.raises(ShapeError):
        decoupled_contrastive_loss(torch.randn(2, 3), torch.randn(3, 3))
    with pytest.raises(ValueError, match="temperature"):
        DecoupledContrastive(-0.1)
