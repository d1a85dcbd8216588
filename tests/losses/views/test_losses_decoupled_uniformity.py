from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import DecoupledUniformity, decoupled_uniformity_loss


def reference(views, t, prior=None, kernel="gaussian", bandwidth=1.0, ridge=1e-4):
    n = len(views[0])
    means = [sum(view[i] / view[i].norm() for view in views) / len(views) for i in range(n)]
    if prior is not None:
        gram = torch.zeros(n, n, dtype=torch.float64)
        for i in range(n):
            for j in range(n):
                a, b = prior[i], prior[j]
                if kernel == "gaussian":
                    gram[i, j] = math.exp(-float(((a - b) ** 2).sum()) / (2 * bandwidth**2))
                else:
                    gram[i, j] = float(a @ b / (a.norm() * b.norm()))
        weights = torch.linalg.inv(gram + n * ridge * torch.eye(n, dtype=torch.float64)) @ gram
        means = [sum(weights[i, j] * means[j] for j in range(n)) for i in range(n)]
    terms = [torch.exp(-t * ((means[i] - means[j]) ** 2).sum()) for i in range(n) for j in range(n) if i != j]
    return torch.log(sum(terms) / len(terms))


@settings(max_examples=25, deadline=None)
@given(
    samples=st.integers(2, 6),
    count=st.integers(2, 3),
    t=st.sampled_from([0.5, 2.0, 40.0]),
    kernel=st.sampled_from([None, "gaussian", "cosine"]),
    seed=st.integers(0, 1000),
)
def test_is_the_paper(samples, count, t, kernel, seed):
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randn(samples, 3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(count)]
    prior = torch.randn(samples, 2, generator=generator, dtype=torch.float64) if kernel else None
    options = {"kernel": kernel, "bandwidth": 0.7, "ridge": 0.02} if kernel else {}
    expected = reference(views, t, prior, **options)
    loss = DecoupledUniformity(t, **options)(*views, prior=prior)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, views), torch.autograd.grad(expected, views), rtol=1e-6, atol=1e-8
    )


def test_views_that_agree_are_better_though_nothing_pulls_them_together():
    x, noise = torch.randn(2, 30, 5, dtype=torch.float64)
    losses = [float(decoupled_uniformity_loss(x, x + amount * noise)) for amount in (0.0, 0.5, 2.0)]
    assert losses == sorted(losses)


def test_alike_samples_share_one_mean():
    x = torch.randn(5, 3, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1, 1])
    loss = DecoupledUniformity(kernel="cosine", ridge=1e-9)
    unit = torch.nn.functional.normalize(x, dim=1)
    means = torch.stack([unit[labels == label].mean(0) for label in labels])
    terms = [math.exp(-2 * float(((means[i] - means[j]) ** 2).sum())) for i in range(5) for j in range(5) if i != j]
    value = loss(x, x, prior=torch.nn.functional.one_hot(labels))
    assert float(value) == pytest.approx(math.log(sum(terms) / 20), rel=1e-6)
    numbers = DecoupledUniformity(bandwidth=0.1, ridge=1e-9)
    torch.testing.assert_close(numbers(x, x, prior=labels), value)
    torch.testing.assert_close(numbers(x, x, prior=labels[:, None].double()), value)


def test_no_gradient_flows_into_the_prior():
    prior = torch.randn(4, 2, requires_grad=True)
    loss = decoupled_uniformity_loss(torch.randn(4, 3, requires_grad=True), torch.randn(4, 3), prior=prior)
    assert torch.autograd.grad(loss, prior, allow_unused=True)[0] is None


def test_wrong_arguments():
    for name in ("t", "bandwidth", "ridge"):
        with pytest.raises(ValueError, match=f"{name} must be positive"):
            DecoupledUniformity(**{name: 0.0})
    with pytest.raises(ConfigError, match="kernel must be 'gaussian' or 'cosine'"):
        DecoupledUniformity(kernel="rbf")
    with pytest.raises(ShapeError, match=r"prior must be \[3, p\] or \[3\], one row a sample, found \[4, 2\]"):
        decoupled_uniformity_loss(torch.eye(3), torch.eye(3), prior=torch.zeros(4, 2))
