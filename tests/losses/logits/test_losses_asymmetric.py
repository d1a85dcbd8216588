from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire import registry
from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import Asymmetric, asymmetric_loss


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5),
    classes=st.integers(1, 5),
    positive=st.sampled_from([0.0, 0.5, 1.0]),
    negative=st.sampled_from([0.0, 0.5, 4.0]),
    margin=st.sampled_from([0.0, 0.05, 0.4]),
    seed=st.integers(0, 1000),
)
def test_is_the_formula(rows, classes, positive, negative, margin, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64) * 3
    targets = torch.randint(2, (rows, classes), generator=generator)
    expected = []
    for row, labels in zip(logits.tolist(), targets.tolist(), strict=True):
        loss = 0.0
        for f, y in zip(row, labels, strict=True):
            p = 1 / (1 + math.exp(-f))
            shifted = max(p - margin, 0.0)
            loss -= (1 - p) ** positive * math.log(p) if y else shifted**negative * math.log(1 - shifted)
        expected.append(loss)
    losses = Asymmetric(positive, negative, margin, reduction="none")(logits, targets)
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))
    mean = asymmetric_loss(logits, targets, gamma_positive=positive, gamma_negative=negative, margin=margin)
    torch.testing.assert_close(mean, losses.mean())


def test_without_focus_and_margin_it_is_binary_cross_entropy():
    logits, targets = torch.randn(4, 3), torch.randint(2, (4, 3)).float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / 4
    found = asymmetric_loss(logits, targets, gamma_negative=0.0, margin=0.0)
    torch.testing.assert_close(found, expected)


def test_absent_labels_within_the_margin_have_no_gradient():
    logits = torch.tensor([[-4.0, -2.0]], requires_grad=True)  # p = 0.018 and 0.12
    asymmetric_loss(logits, torch.zeros(1, 2), margin=0.05).backward()
    assert logits.grad[0, 0] == 0
    assert logits.grad[0, 1] > 0


@pytest.mark.parametrize("gamma", [0.0, 0.5, 4.0])
@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_certain_labels_have_finite_gradients(gamma, margin):
    logits = torch.tensor([[200.0, -200.0, 200.0, -200.0]], requires_grad=True)
    targets = torch.tensor([[1, 0, 0, 1]])
    options = {"gamma_positive": gamma, "gamma_negative": gamma, "margin": margin}
    loss = asymmetric_loss(logits, targets, **options)
    loss.backward()
    mistaken = -math.log(margin) * (1 - margin) ** gamma if margin else 200.0
    torch.testing.assert_close(loss, torch.tensor(200.0 + mistaken))
    assert logits.grad.isfinite().all()


def test_a_margin_below_rounding_keeps_the_loss_and_its_slope_finite():
    logits = torch.tensor([[40.0]], requires_grad=True)
    loss = asymmetric_loss(logits, torch.zeros(1, 1), margin=1e-9, gamma_negative=0)
    loss.backward()
    torch.testing.assert_close(loss, torch.tensor(-math.log(1e-9)), rtol=1e-5, atol=0.0)
    assert 0 <= logits.grad < 1e-6


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_gradcheck(margin):
    logits = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
    assert torch.autograd.gradcheck(lambda f: asymmetric_loss(f, targets, gamma_positive=1.0, margin=margin), (logits,))


def test_class_indices_are_refused_with_advice():
    with pytest.raises(ShapeError, match=r"targets must be multi-hot \[2, 3\].*class indices are for losses with one"):
        asymmetric_loss(torch.zeros(2, 3), torch.tensor([0, 1]))
    with pytest.raises(ShapeError, match=r"targets must lie in \[0, 1\], or -1 where nobody knows, found -2"):
        asymmetric_loss(torch.zeros(1, 2), torch.tensor([[1, -2]]))


@pytest.mark.parametrize("option", ["gamma_positive=-1", "gamma_negative=nan", "margin=1", "margin=-0.1"])
def test_options_out_of_range(option):
    with pytest.raises(ConfigError, match=f"{option.split('=')[0]} must"):
        registry.build("losses", f"asymmetric:{option}")
