from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire import registry
from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import (
    BalancedSoftmax,
    LogitAdjusted,
    balanced_softmax_loss,
    cross_entropy,
    logit_adjusted_loss,
)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5),
    classes=st.integers(1, 5),
    tau=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    seed=st.integers(0, 1000),
)
def test_is_the_formula(rows, classes, tau, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64) * 3
    targets = torch.randint(classes, (rows,), generator=generator)
    counts = torch.randint(1, 1000, (classes,), generator=generator)
    prior = [n / int(counts.sum()) for n in counts.tolist()]
    adjusted, balanced = [], []
    for row, y in zip(logits.tolist(), targets.tolist(), strict=True):
        weighed = [math.exp(f + tau * math.log(p)) for f, p in zip(row, prior, strict=True)]
        adjusted.append(-math.log(weighed[y] / sum(weighed)))
        weighed = [n * math.exp(f) for f, n in zip(row, counts.tolist(), strict=True)]
        balanced.append(-math.log(weighed[y] / sum(weighed)))
    losses = LogitAdjusted(counts.double(), tau, reduction="none")(logits, targets)
    torch.testing.assert_close(losses, torch.tensor(adjusted, dtype=torch.float64))
    torch.testing.assert_close(logit_adjusted_loss(logits, targets, counts, tau=tau), losses.mean())
    losses = BalancedSoftmax(counts.double(), reduction="none")(logits, targets)
    torch.testing.assert_close(losses, torch.tensor(balanced, dtype=torch.float64))
    torch.testing.assert_close(balanced_softmax_loss(logits, targets, counts), losses.mean())


def test_equal_counts_or_tau_zero_are_cross_entropy():
    logits, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    expected = cross_entropy(logits, targets)
    torch.testing.assert_close(balanced_softmax_loss(logits, targets, torch.full((3,), 7)), expected)
    torch.testing.assert_close(logit_adjusted_loss(logits, targets, torch.tensor([1, 2, 9]), tau=0.0), expected)


def test_its_minimum_has_the_argmax_of_balanced_classes():
    """Where inputs say nothing, the logits learn nothing: all classes come out alike, however unlike their counts."""
    counts = torch.tensor([90.0, 10.0])
    logits = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    targets = torch.arange(2).repeat_interleave(counts.long())
    logit_adjusted_loss(logits.expand(100, 2), targets, counts).backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits))


def test_gradcheck():
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    counts = torch.tensor([100, 10, 5, 1])
    assert torch.autograd.gradcheck(lambda f: logit_adjusted_loss(f, torch.tensor([0, 1, 3]), counts), (logits,))


@pytest.mark.parametrize("name", ["logit-adjusted", "balanced-softmax", "ldam"])
def test_counts_come_from_the_spec_and_are_state(name):
    loss = registry.build("losses", f"{name}:counts=(50,5,1)")
    assert loss.state_dict()["counts"].tolist() == [50.0, 5.0, 1.0]
    with pytest.raises(ShapeError, match=r"counts must be \[2\], one for each class, found \[3\]"):
        loss(torch.zeros(1, 2), torch.tensor([0]))
    with pytest.raises(ConfigError, match="needs counts"):
        registry.build("losses", name)


@pytest.mark.parametrize("counts", [[1.0, 0.0], [], [[1.0]], [math.nan], [math.inf]])
def test_counts_out_of_range(counts):
    with pytest.raises(ShapeError, match=r"counts must be \[C\].*all positive"):
        BalancedSoftmax(counts)


def test_negative_tau():
    with pytest.raises(ValueError, match="tau must be 0 or more, found -1"):
        LogitAdjusted([1, 2], tau=-1.0)
