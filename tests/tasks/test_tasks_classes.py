from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as reference

from repertoire.tasks import Outputs, calibration, score, wilson


@given(st.integers(1, 80), st.integers(2, 6), st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_scores_equal_those_of_scikit_learn(count: int, classes: int, seed: int):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    logits = generator.normal(size=(count, classes)).astype(np.float32) * 3
    result = score(Outputs(logits, logits, labels), tuple(map(str, range(classes))))
    predicted = logits.argmax(1)
    present = np.unique(labels)
    exponent = np.exp(logits.astype(np.float64))
    probabilities = exponent / exponent.sum(1, keepdims=True)
    assert result["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    recall = [np.mean(predicted[labels == k] == k) for k in present]
    assert result["balanced_accuracy"] == pytest.approx(np.mean(recall))
    f1 = reference.f1_score(labels, predicted, average="macro", zero_division=0)
    assert result["macro_f1"] == pytest.approx(f1)
    nll = reference.log_loss(labels, probabilities, labels=range(classes))
    assert result["nll"] == pytest.approx(nll, rel=1e-5)
    assert result["confusion"] == reference.confusion_matrix(labels, predicted, labels=range(classes)).tolist()


@given(st.integers(0, 50), st.integers(1, 50))
@settings(max_examples=30, deadline=None)
def test_wilson_equals_scipy(successes: int, trials: int):
    successes = min(successes, trials)
    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_unlabelled_images_do_not_count():
    logits = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]], np.float32)
    result = score(Outputs(logits, logits, np.array([0, -1, 0])), ("a", "b"))
    assert result["images"] == 2
    assert result["accuracy"] == 0.5
    assert result["per_class"][1]["accuracy"] is None
    assert score(Outputs(logits, logits, np.full(3, -1)), ("a", "b")) == {"images": 0}


def test_huge_logits_give_finite_numbers():
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    result = score(Outputs(logits, logits, np.array([0, 0])), ("a", "b"))
    assert np.isfinite(result["nll"])


def test_calibration_of_a_known_case():
    # Two images at 0.9 confidence, one right; two at 0.6, both right: ECE = (|0.5 - 0.9| + |1 - 0.6|) / 2.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    result = calibration(probabilities, np.array([0, 1, 0, 0]), bins=10)
    assert result["ece"] == pytest.approx(0.4)
    assert [b["count"] for b in result["bins"]] == [0, 0, 0, 0, 0, 2, 0, 0, 2, 0]
    assert calibration(np.array([[1.0, 0.0]]), np.array([0]))["ece"] == 0


@pytest.mark.parametrize("bins", [10, 15, 25, 29, 35, 38, 39])
def test_a_confidence_on_an_edge_is_in_the_bin_below_it(bins):
    """Bins are open below and closed above, whatever a product with their number rounds to."""
    edges = np.arange(1, bins + 1) / bins
    edges = edges[edges >= 0.5]
    found = calibration(np.stack([edges, 1 - edges], 1), np.zeros(len(edges), int), bins=bins)
    assert [b["count"] for b in found["bins"]] == [0] * (bins - len(edges)) + [1] * len(edges)


def test_macro_f1_counts_classes_that_are_only_predicted():
    """As scikit-learn does: labels 0, 0, 0, 0 and predictions 0, 0, 1, 2 give (2/3 + 0 + 0) / 3."""
    logits = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    labels = np.zeros(4, int)
    found = score(Outputs(logits, logits, labels), ("a", "b", "c", "d"))
    assert found["macro_f1"] == pytest.approx(2 / 9)
    assert found["macro_f1"] == pytest.approx(reference.f1_score(labels, logits.argmax(1), average="macro"))
    assert found["balanced_accuracy"] == 0.5
