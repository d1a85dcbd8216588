from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import ProxyAnchor, proxy_anchor_loss

SETTINGS = settings(max_examples=25, deadline=None)


def reference(embeddings, labels, proxies, alpha, margin):
    """Equation 4 of the paper, proxy by proxy."""
    x = [row / row.norm() for row in embeddings]
    p = [row / row.norm() for row in proxies]
    pulled, pushed = [], []
    for c, proxy in enumerate(p):
        own = [math.exp(-alpha * (float(row @ proxy) - margin)) for row, y in zip(x, labels, strict=True) if y == c]
        others = [
            math.exp(alpha * (float(row @ proxy) + margin))
            for row, y in zip(x, labels, strict=True)
            if y != c and y >= 0
        ]
        if own:
            pulled.append(math.log1p(sum(own)))
        pushed.append(math.log1p(sum(others)))
    return (sum(pulled) / len(pulled) if pulled else 0.0) + sum(pushed) / len(pushed)


def problem(n, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(n, 5, generator=generator, dtype=torch.float64),
        torch.randint(-1, classes, (n,), generator=generator),
        torch.randn(classes, 5, generator=generator, dtype=torch.float64),
    )


@given(st.integers(0, 20), st.integers(1, 6), st.integers(0, 2**31))
@SETTINGS
@pytest.mark.filterwarnings("ignore::repertoire.errors.RepertoireWarning")
def test_agrees_with_the_formula(n, classes, seed):
    x, labels, proxies = problem(n, classes, seed)
    for alpha, margin in ((32.0, 0.1), (1.0, -0.3)):
        expected = reference(x, labels.tolist(), proxies, alpha, margin)
        found = proxy_anchor_loss(x, labels, proxies, alpha=alpha, margin=margin)
        assert math.isclose(float(found), expected, rel_tol=1e-9, abs_tol=1e-9)


def test_gradient_is_that_of_the_formula():
    x, labels, proxies = problem(9, 3, 0)
    x.requires_grad_()
    proxies.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: proxy_anchor_loss(a, labels, b, alpha=4.0), (x, proxies))


def test_a_sample_without_a_class_makes_no_difference():
    x, labels, proxies = problem(9, 3, 1)
    labels = labels.clamp_min(0)
    more = torch.cat([x, torch.ones(2, 5)])
    found = proxy_anchor_loss(more, torch.cat([labels, torch.tensor([-1, -7])]), proxies)
    torch.testing.assert_close(found, proxy_anchor_loss(x, labels, proxies))


def test_a_reference_set_is_more_samples():
    x, labels, proxies = problem(9, 3, 2)
    labels = labels.clamp_min(0)
    found = proxy_anchor_loss(x[:4], labels[:4], proxies, reference=x[4:], reference_labels=labels[4:])
    torch.testing.assert_close(found, proxy_anchor_loss(x, labels, proxies))


def test_the_proxies_are_parameters():
    torch.manual_seed(0)
    loss = ProxyAnchor(num_classes=3)
    with pytest.raises(ConfigError, match="dimensions of the embeddings are not known"):
        loss(torch.eye(3), torch.arange(3))
    loss.prepare(3)
    loss(torch.eye(3), torch.arange(3)).backward()
    assert dict(loss.named_parameters())["proxies"].grad.any(dim=1).all()
    assert loss.state_dict().keys() == {"proxies"}
    loss.prepare(3)
    with pytest.raises(ConfigError, match="embeddings of 3 dimensions and the method makes 4"):
        loss.prepare(4)


def test_what_does_not_fit():
    with pytest.raises(ShapeError, match=r"labels must lie in 0\.\.1"):
        proxy_anchor_loss(torch.eye(3), torch.arange(3), torch.eye(2, 3))
    with pytest.raises(ShapeError, match="proxies must be"):
        proxy_anchor_loss(torch.eye(3), torch.arange(3), torch.eye(3, 2))
    with pytest.raises(ConfigError, match="num_classes must be positive"):
        ProxyAnchor(num_classes=0)
    with pytest.raises(ConfigError, match="dimensions must be positive"):
        ProxyAnchor(num_classes=2, dimensions=0)
    for alpha in (0.0, -1.0, 65.0, math.nan):
        with pytest.raises(ValueError, match=r"alpha must lie in \(0, 64\]"):
            ProxyAnchor(num_classes=2, alpha=alpha)


def test_a_sample_opposite_its_proxy_has_a_finite_loss_at_the_largest_sharpness():
    """Its exponent is alpha (1 + margin) = 128, whose power is no number in float32."""
    proxies = torch.eye(3)
    x = torch.cat([-proxies, proxies[:1]]).requires_grad_()
    labels = torch.tensor([0, 1, 2, -1])
    value = proxy_anchor_loss(x, labels, proxies, alpha=64.0, margin=1.0)
    # Each pulls with 64 (1 + 1), and is pushed by two samples at a cosine of 0: log(1 + 2 e^64).
    assert float(value.detach()) == pytest.approx(128 + 64 + math.log(2), rel=1e-6)
    value.backward()
    assert x.grad.isfinite().all()
