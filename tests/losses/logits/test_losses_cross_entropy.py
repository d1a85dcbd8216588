from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire import registry
from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import CrossEntropy, cross_entropy


def reference(logits, targets, weight, smoothing):
    """-sum_c w_c q_c log p_c, one number at a time, in float64."""
    rows, classes = logits.shape
    losses = []
    for i in range(rows):
        exponentials = [math.exp(float(f)) for f in logits[i]]
        loss = 0.0
        for c in range(classes):
            target = float(targets[i][c]) if targets.is_floating_point() else float(int(targets[i]) == c)
            q = (1 - smoothing) * target + smoothing / classes
            loss -= float(weight[c]) * q * math.log(exponentials[c] / sum(exponentials))
        losses.append(loss)
    return losses


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5),
    classes=st.integers(1, 5),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    soft=st.booleans(),
    weighted=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_is_the_formula(rows, classes, smoothing, soft, weighted, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64) * 3
    targets = torch.randint(classes, (rows,), generator=generator)
    if soft:
        targets = torch.rand(rows, classes, generator=generator, dtype=torch.float64).softmax(1)
    weight = torch.rand(classes, generator=generator, dtype=torch.float64) + 0.1
    given_weight = weight if weighted else None
    expected = reference(logits, targets, weight if weighted else torch.ones(classes), smoothing)
    for reduction, value in (("none", expected), ("sum", sum(expected))):
        loss = cross_entropy(logits, targets, weight=given_weight, label_smoothing=smoothing, reduction=reduction)
        torch.testing.assert_close(loss, torch.tensor(value, dtype=torch.float64))
    mean = cross_entropy(logits, targets, weight=given_weight, label_smoothing=smoothing)
    torch.testing.assert_close(mean, torch.tensor(sum(expected) / rows, dtype=torch.float64))
    module = CrossEntropy(smoothing, given_weight)
    torch.testing.assert_close(module(logits, targets), mean)


def test_agrees_with_pytorch_but_for_the_divisor_of_a_weighted_mean():
    logits, targets = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 3, 0])
    weight = torch.tensor([1.0, 2.0, 0.5, 0.0])
    expected = torch.nn.functional.cross_entropy(logits, targets, weight, label_smoothing=0.1)
    found = cross_entropy(logits, targets, weight=weight, label_smoothing=0.1)
    torch.testing.assert_close(found * 6 / weight[targets].sum(), expected)
    # So a batch is the mean of its pieces, whatever classes are in each.
    pieces = [
        cross_entropy(logits[part], targets[part], weight=weight, label_smoothing=0.1)
        for part in (slice(3), slice(3, 6))
    ]
    torch.testing.assert_close(found, torch.stack(pieces).mean())


def test_half_precision_is_summed_in_float32():
    logits = torch.full((1, 2048), 1.0, dtype=torch.bfloat16)  # 2048 + 1 is no bfloat16
    loss = cross_entropy(logits, torch.tensor([0]))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.tensor(math.log(2048)))


def test_all_targets_of_weight_zero():
    logits = torch.randn(2, 3, requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([0, 0]), weight=torch.tensor([0.0, 1.0, 1.0]))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("target", [-1, 3])
def test_target_that_is_no_class(target):
    with pytest.raises(ShapeError, match=rf"targets must lie in 0..2 for logits of 3 classes, found {target}"):
        cross_entropy(torch.zeros(2, 3), torch.tensor([0, target]))


def test_weights_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"weight must be \[3\], one for each class, found \[2\]"):
        cross_entropy(torch.zeros(2, 3), torch.tensor([0, 1]), weight=torch.ones(2))
    with pytest.raises(ValueError, match=r"weight must be .* not negative"):
        CrossEntropy(weight=[1.0, -1.0])
    with pytest.raises(ValueError, match="weight must be"):
        CrossEntropy(weight=torch.ones(2, 2))


def test_weights_are_state():
    module = CrossEntropy(weight=[1, 3])
    assert module.state_dict()["weight"].tolist() == [1.0, 3.0]
    assert CrossEntropy().state_dict() == {}


@pytest.mark.parametrize("smoothing", [-0.1, 1.5, math.nan])
def test_label_smoothing_out_of_range(smoothing):
    with pytest.raises(ConfigError, match="label_smoothing must lie in"):
        registry.build("losses", f"cross-entropy:label_smoothing={smoothing}")
    assert registry.build("losses", "cross-entropy:label-smoothing=0.2").label_smoothing == 0.2
