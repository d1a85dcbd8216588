from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.losses import (
    DebiasedContrastive,
    debiased_contrastive_loss,
    decoupled_contrastive_loss,
    nt_xent_loss,
)


def anchors(views):
    """Each embedding with the other views of its sample, and with all views of the others."""
    z = [[row / row.norm() for row in view] for view in views]
    for u in range(len(z)):
        for i in range(len(z[0])):
            positives = [z[v][i] for v in range(len(z)) if v != u]
            yield z[u][i], positives, [view[j] for view in z for j in range(len(view)) if j != i]


def reference(views, prior, hardness, t):
    losses = []
    for x, positives, negatives in anchors(views):
        near, far = (torch.stack([torch.exp(x @ y / t) for y in others]) for others in (positives, negatives))
        weights = far**hardness
        reweighted = (weights * far).sum() / weights.mean()
        n = len(negatives)
        total = (reweighted - n * prior * near.mean()) / (1 - prior)
        total = torch.clamp(total, min=n * math.exp(-1 / t))
        losses.extend(-torch.log(p / (p + total)) for p in near)
    return sum(losses) / len(losses)


@settings(max_examples=25, deadline=None)
@given(
    samples=st.integers(2, 5),
    width=st.integers(1, 4),
    count=st.integers(2, 3),
    prior=st.sampled_from([0.0, 0.1, 0.6]),
    hardness=st.sampled_from([0.0, 1.0]),
    temperature=st.sampled_from([0.05, 0.5]),
    seed=st.integers(0, 1000),
)
def test_is_the_paper(samples, width, count, prior, hardness, temperature, seed):
    generator = torch.Generator().manual_seed(seed)
    views = [
        torch.randn(samples, width, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(count)
    ]
    expected = reference(views, prior, hardness, temperature)
    loss = DebiasedContrastive(prior, hardness, temperature)(*views)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, views), torch.autograd.grad(expected, views), rtol=1e-6, atol=1e-7
    )


def test_without_prior_and_hardness_it_is_nt_xent():
    views = torch.randn(2, 6, 4, dtype=torch.float64)
    torch.testing.assert_close(
        debiased_contrastive_loss(*views, class_prior=0.0, temperature=0.2), nt_xent_loss(*views, temperature=0.2)
    )


def test_a_small_temperature_is_no_matter_of_the_range_of_floats():
    views = tuple(view.requires_grad_() for view in torch.randn(2, 6, 4))
    loss = debiased_contrastive_loss(*views, class_prior=0.3, hardness=2.0, temperature=0.01)
    exact = debiased_contrastive_loss(*(v.double() for v in views), class_prior=0.3, hardness=2.0, temperature=0.01)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-4, atol=1e-4)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, views))


def test_where_the_estimate_is_below_its_floor_the_floor_stands_in_without_gradient():
    # The positive is all that there is to the estimate: less than nothing is left of the negatives.
    x = torch.eye(2, dtype=torch.float64, requires_grad=True)
    loss = debiased_contrastive_loss(x, x, class_prior=0.9, temperature=0.5)
    torch.testing.assert_close(loss, torch.log(1 + 2 * torch.exp(torch.tensor(-4.0, dtype=torch.float64))))
    assert torch.autograd.grad(loss, x)[0].isfinite().all()


@settings(max_examples=15, deadline=None)
@given(samples=st.integers(2, 5), count=st.integers(2, 3), seed=st.integers(0, 1000))
def test_decoupled_contrastive_is_its_paper(samples, count, seed):
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randn(samples, 3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(count)]
    losses = []
    for x, positives, negatives in anchors(views):
        far = torch.log(sum(torch.exp(x @ y / 0.2) for y in negatives))
        losses.extend(far - x @ p / 0.2 for p in positives)
    expected = sum(losses) / len(losses)
    loss = decoupled_contrastive_loss(*views, temperature=0.2)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, views), torch.autograd.grad(expected, views), rtol=1e-6, atol=1e-8
    )


def test_wrong_arguments():
    for prior in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"class_prior must lie in \[0, 1\)"):
            DebiasedContrastive(class_prior=prior)
    with pytest.raises(ValueError, match="hardness must be 0 or more"):
        debiased_contrastive_loss(torch.eye(2), torch.eye(2), hardness=-1.0)
