from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.losses import Entropy, LabelEncodingRisk, entropy_loss, label_encoding_risk


def probabilities(logits: list[list[float]]) -> list[list[float]]:
    rows = []
    for row in logits:
        total = sum(math.exp(value) for value in row)
        rows.append([math.exp(value) / total for value in row])
    return rows


def reference(logits: list[list[float]]) -> float:
    """Class by class and sample by sample."""
    p = probabilities(logits)
    classes = range(len(p[0]))
    total = 0.0
    for c in classes:
        weight = sum(row[c] for row in p)
        for k in classes:
            mean = sum(row[c] * row[k] for row in p) / weight
            total += abs(mean - (c == k))
    return total / len(p[0]) ** 2


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(0, 9), st.integers(0, 999))
def test_agrees_with_the_formula(classes, more, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(classes + more, classes, generator=generator, dtype=torch.float64)
    expected = reference(logits.tolist())
    torch.testing.assert_close(label_encoding_risk(logits).item(), expected)
    torch.testing.assert_close(LabelEncodingRisk()(logits).item(), expected)


def test_gradient_is_that_of_finite_differences():
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(label_encoding_risk, logits)
    assert torch.autograd.gradcheck(entropy_loss, logits)


def test_zero_is_reached_by_certain_predictions_of_all_classes_alone():
    certain = 200 * torch.eye(3, dtype=torch.float64)
    assert label_encoding_risk(certain[[0, 1, 2, 2, 1]]) < 1e-30
    assert label_encoding_risk(certain[[0, 1, 1, 0]]) > 0.1
    assert label_encoding_risk(0.01 * certain) > 0.1
    # Entropy is content with all alike.
    assert entropy_loss(certain[[1, 1, 1]]) < 1e-30


def test_it_asks_for_the_class_that_nobody_is_taken_for():
    """A step down raises the missing class in the sample that is nearest to it; of entropy, it lowers it everywhere."""
    logits = torch.tensor([[4.0, 0.0, -6.0]] * 3 + [[0.0, 4.0, -6.0]] * 3, dtype=torch.float64)
    logits[1, 2] = 0.5
    moved = {}
    for loss in (label_encoding_risk, entropy_loss):
        variable = logits.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(variable), variable)
        moved[loss] = ((logits - 1e-2 * gradient).softmax(1) - logits.softmax(1))[:, 2]
    assert moved[label_encoding_risk][1] > 0
    assert moved[label_encoding_risk][[0, 2, 3, 4, 5]].max() < 0
    assert moved[entropy_loss].max() < 0


def test_a_class_whose_probabilities_underflow_has_a_mean_all_the_same():
    logits = torch.tensor([[0.0, 1.0, -500.0], [0.0, -1.0, -503.0], [0.3, 0.1, -501.0]])
    variable = logits.clone().requires_grad_()
    value = label_encoding_risk(variable)
    torch.testing.assert_close(value.double().item(), reference(logits.double().tolist()), rtol=1e-5, atol=1e-6)
    value.backward()
    assert variable.grad.isfinite().all()


def test_of_fewer_samples_than_classes_only_so_many_are_compared():
    certain = 200 * torch.eye(5, dtype=torch.float64)
    assert label_encoding_risk(certain[[4, 2]]) < 1e-30
    logits = torch.randn(2, 5, dtype=torch.float64)
    p = torch.tensor(probabilities(logits.tolist()))
    kept = p.sum(0).topk(2).indices
    means = torch.tensor([[float((p[:, c] * p[:, k]).sum() / p[:, c].sum()) for k in kept] for c in kept])
    torch.testing.assert_close(label_encoding_risk(logits).item(), float((means - torch.eye(2)).abs().mean()))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 7), st.integers(1, 5), st.integers(0, 999))
def test_entropy_agrees_with_the_formula(count, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    expected = [-sum(p * math.log(p) for p in row) for row in probabilities(logits.tolist())]
    torch.testing.assert_close(entropy_loss(logits, reduction="none"), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(Entropy(reduction="sum")(logits).item(), sum(expected))
    torch.testing.assert_close(Entropy()(logits).item(), sum(expected) / count)


@pytest.mark.parametrize("loss", [label_encoding_risk, entropy_loss])
def test_largest_values_are_as_documented(loss):
    logits = torch.randn(50, 4, dtype=torch.float64) * torch.logspace(-3, 3, 50, dtype=torch.float64)[:, None]
    most = 2 / 4 if loss is label_encoding_risk else math.log(4)
    assert 0 <= loss(logits) <= most
