"""Metrics of scores, classes, numbers and clusters, against scikit-learn, SciPy or a slow loop; ties and corners."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn import metrics as sk

from repertoire import metrics as ours
from repertoire.errors import ConfigError, ShapeError

seeds = st.integers(0, 10_000)


def _scores(rng: np.random.Generator, count: int, values: int) -> np.ndarray:
    """Scores of which many are equal where there are few values."""
    return rng.integers(0, values, count) / values - 0.5


def _mixed(rng: np.random.Generator, count: int) -> np.ndarray:
    """At least one positive and one negative."""
    positive = rng.random(count) < rng.uniform(0.1, 0.9)
    positive[:2] = True, False
    return rng.permutation(positive)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 40), st.sampled_from([1, 2, 5, 1000]))
def test_ranking_of_two_kinds(seed, count, values):
    rng = np.random.default_rng(seed)
    scores, positive = _scores(rng, count, values), _mixed(rng, count)
    assert ours.auroc(scores, positive) == pytest.approx(sk.roc_auc_score(positive, scores))
    assert ours.average_precision(scores, positive) == pytest.approx(sk.average_precision_score(positive, scores))
    wins = [float(a > b) + 0.5 * float(a == b) for a, b in itertools.product(scores[positive], scores[~positive])]
    assert ours.auroc(scores, positive) == pytest.approx(np.mean(wins))
    for tpr in (0.05, 0.5, 0.95, 1.0):
        enough = [t for t in scores if (scores[positive] >= t).mean() >= tpr - 1e-12]
        assert ours.fpr_at_tpr(scores, positive, tpr) == (scores[~positive] >= max(enough)).mean()


def test_one_kind_only():
    scores = np.array([0.1, 0.2])
    for measure in (ours.auroc, ours.fpr_at_tpr):
        assert math.isnan(measure(scores, [True, True]))
        assert math.isnan(measure(scores, [False, False]))
        assert math.isnan(measure([], []))
    assert ours.average_precision(scores, [True, True]) == 1
    assert math.isnan(ours.average_precision(scores, [False, False]))
    assert math.isnan(ours.average_precision([], []))


def test_infinite_scores_are_ranked_as_such():
    assert ours.auroc([math.inf, 3.0, -math.inf], [True, True, False]) == 1
    assert ours.average_precision([math.inf, -math.inf], [False, True]) == 0.5


def test_95_percent_of_20_are_19():
    scores = np.append(np.arange(20, 0, -1), [2, 1])
    positive = np.arange(22) < 20
    assert ours.fpr_at_tpr(scores, positive) == 0.5


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3, 1000]))
def test_oscr_is_the_area_under_its_curve(seed, count, others, values):
    """Against the trapezoids under the curve, at every threshold."""
    rng = np.random.default_rng(seed)
    known, unknown = _scores(rng, count, values), _scores(rng, others, values)
    correct = rng.random(count) < 0.7
    thresholds = [math.inf, *sorted({*known, *unknown}, reverse=True)]
    points = [(float((unknown >= t).mean()), float(((known >= t) & correct).mean())) for t in thresholds]
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))
    assert ours.oscr(known, correct, unknown) == pytest.approx(area)
    assert ours.oscr(known, np.ones(count), unknown) == pytest.approx(
        ours.auroc(np.append(known, unknown), np.arange(count + others) < count)
    )


def test_oscr_without_samples():
    assert math.isnan(ours.oscr([], [], [1.0]))
    assert math.isnan(ours.oscr([1.0], [True], []))
    assert ours.oscr([1.0], [False], [0.0]) == 0


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 6), st.sampled_from([1, 2, 1000]), st.booleans())
def test_area_under_the_risk_is_the_mean_over_all_orders_of_the_equal_ones(seed, count, values, errors):
    rng = np.random.default_rng(seed)
    confidence = _scores(rng, count, values)
    loss = (rng.random(count) < 0.4).astype(float) if errors else rng.random(count)
    areas = []
    for order in itertools.permutations(range(count)):
        ranked = confidence[list(order)]
        if (np.diff(ranked) <= 0).all():
            risks = np.cumsum(loss[list(order)]) / np.arange(1, count + 1)
            areas.append(risks.mean())
    assert ours.aurc(confidence, loss) == pytest.approx(np.mean(areas))
    coverage, risk = ours.risk_coverage(confidence, loss)
    expected = [((confidence >= t).mean(), loss[confidence >= t].mean()) for t in sorted({*confidence}, reverse=True)]
    np.testing.assert_allclose(np.stack([coverage, risk], 1), expected)


def test_risk_without_samples():
    assert math.isnan(ours.aurc([], []))
    assert [len(part) for part in ours.risk_coverage([], [])] == [0, 0]


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 30), st.integers(1, 6), st.integers(1, 7), st.sampled_from([1, 3, 1000]))
def test_top_k(seed, count, classes, k, values):
    rng = np.random.default_rng(seed)
    scores = _scores(rng, count * classes, values).reshape(count, classes)
    labels = rng.integers(0, classes, count)
    right = 0
    for row, label in zip(scores, labels, strict=True):
        ahead = [c for c in range(classes) if c != label and row[c] >= row[label]]
        right += len(ahead) < k
    assert ours.top_k_accuracy(scores, labels, k) == pytest.approx(right / count)
    if values == 1000 and classes > 2 and k < classes and all(len({*row}) == classes for row in scores):
        assert ours.top_k_accuracy(scores, labels, k) == pytest.approx(
            sk.top_k_accuracy_score(labels, scores, k=k, labels=range(classes))
        )


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 30), st.integers(1, 6))
def test_f1(seed, count, classes):
    rng = np.random.default_rng(seed)
    guesses, labels = rng.integers(0, classes, count) - 1, rng.integers(0, classes, count) - 1
    for average in ("macro", "micro"):
        assert ours.f1(guesses, labels, average) == pytest.approx(sk.f1_score(labels, guesses, average=average))
    said, true = rng.random((count, classes)) < 0.5, rng.random((count, classes)) < 0.5
    there = said.any(0) | true.any(0)
    if there.any():
        expected = sk.f1_score(true[:, there], said[:, there], average="macro", zero_division=0.0)
        if there.sum() == 1:
            expected = sk.f1_score(true[:, there][:, 0], said[:, there][:, 0], zero_division=0.0)
        assert ours.f1(said, true) == pytest.approx(expected)
        total = 2 * (said & true).sum() / (said.sum() + true.sum())
        assert ours.f1(said, true, "micro") == pytest.approx(total)
    else:
        assert math.isnan(ours.f1(said, true))


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 20), st.integers(1, 5), st.sampled_from([2, 1000]))
def test_mean_average_precision(seed, count, labels, values):
    rng = np.random.default_rng(seed)
    scores = _scores(rng, count * labels, values).reshape(count, labels)
    truth = rng.random((count, labels)) < 0.3
    found = ours.mean_average_precision(scores, truth)
    there = truth.any(0)
    if there.any():
        each = [sk.average_precision_score(truth[:, k], scores[:, k]) for k in np.flatnonzero(there)]
        assert found == pytest.approx(np.mean(each))
    else:
        assert math.isnan(found)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 30), st.integers(1, 3), st.sampled_from([2, 4, 1000]))
def test_numbers(seed, count, columns, values):
    rng = np.random.default_rng(seed)
    predicted, true = (_scores(rng, count * columns, values).reshape(count, columns) for _ in range(2))
    assert ours.mean_absolute_error(predicted, true) == pytest.approx(sk.mean_absolute_error(true, predicted))
    assert ours.mean_squared_error(predicted, true) == pytest.approx(sk.mean_squared_error(true, predicted))
    varies, both = (np.ptp(true, 0) > 0).all(), (np.ptp(predicted, 0) > 0).all()
    found = ours.r2(predicted, true)
    assert found == pytest.approx(sk.r2_score(true, predicted)) if varies else math.isnan(found)
    found = ours.spearman(predicted, true)
    if varies and both:
        each = [spearmanr(predicted[:, k], true[:, k]).statistic for k in range(columns)]
        assert found == pytest.approx(np.mean(each))
    else:
        assert math.isnan(found)


def test_no_numbers():
    for measure in (ours.mean_absolute_error, ours.mean_squared_error, ours.r2, ours.spearman):
        assert math.isnan(measure([], []))
    assert math.isnan(ours.r2([1.0], [1.0]))


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 30), st.integers(1, 5), st.integers(1, 5))
def test_clusters(seed, count, groups, classes):
    rng = np.random.default_rng(seed)
    clusters, labels = rng.integers(0, groups, count) * 7 - 3, rng.integers(0, classes, count) * 5
    assert ours.nmi(clusters, labels) == pytest.approx(sk.normalized_mutual_info_score(labels, clusters), abs=1e-9)
    names, targets = sorted({*clusters}), sorted({*labels})
    padded = targets + [None] * max(0, len(names) - len(targets))
    best = max(
        sum(chosen[names.index(c)] == t for c, t in zip(clusters, labels, strict=True))
        for chosen in itertools.permutations(padded, len(names))
    )
    old = [t for t in targets if rng.random() < 0.5]
    found = ours.clustering_accuracy(clusters, labels, old)
    assert found.all == pytest.approx(best / count)
    right = np.array([found.classes.get(c) == t for c, t in zip(clusters, labels, strict=True)])
    assert right.mean() == pytest.approx(found.all), "the assignment that is given is the one that is judged"
    assert len({*found.classes.values()}) == len(found.classes)
    known = np.isin(labels, old)
    for value, part in ((found.old, right[known]), (found.new, right[~known])):
        assert value == pytest.approx(part.mean()) if len(part) else math.isnan(value)


def test_no_clusters():
    assert math.isnan(ours.nmi([], []))
    assert math.isnan(ours.clustering_accuracy([], []).all)
    assert ours.nmi([1, 1], [0, 0]) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_that_need_a_gradient(dtype):
    scores = torch.tensor([0.5, 0.25, 0.75], dtype=dtype, requires_grad=True)
    assert ours.auroc(scores, torch.tensor([True, False, True])) == 1
    assert ours.spearman(scores, scores) == pytest.approx(1)


BAD = [
    (lambda: ours.auroc([0.1, 0.2], [True]), "expected the same shape"),
    (lambda: ours.auroc([math.nan, 0.2], [True, False]), "1 values that are not a number"),
    (lambda: ours.auroc([[0.1]], [True]), r"scores must be numbers \[N\]"),
    (lambda: ours.auroc(["a"], [True]), r"scores must be numbers \[N\]"),
    (lambda: ours.average_precision([0.1, 0.2], [0, 2]), "0 and 1; found 2"),
    (lambda: ours.fpr_at_tpr([0.1, 0.2], [0, 1], tpr=0.0), "tpr is 0.0"),
    (lambda: ours.fpr_at_tpr([0.1, 0.2], [0, 1], tpr=math.nan), "tpr is nan"),
    (lambda: ours.oscr([0.1], [True, False], [0.2]), "expected the same shape"),
    (lambda: ours.aurc([0.1], [0.0, 1.0]), "expected the same shape"),
    (lambda: ours.top_k_accuracy([[0.1, 0.2]], [2]), "labels go from 2 to 2; expected classes from 0 to 1"),
    (lambda: ours.top_k_accuracy([[0.1, 0.2]], [-1]), "expected classes from 0 to 1"),
    (lambda: ours.top_k_accuracy([[0.1, 0.2]], [0, 1]), "expected as many rows"),
    (lambda: ours.top_k_accuracy([[0.1, 0.2]], [0], k=0), "k is 0"),
    (lambda: ours.f1([0.5], [1]), r"predicted must be whole numbers \[N\]"),
    (lambda: ours.f1([0], [1], "weighted"), "average is 'weighted'"),
    (lambda: ours.f1([[0, 1]], [[0, 1, 1]]), "expected the same shape"),
    (lambda: ours.nmi([0.5], [1]), "clusters must be whole numbers"),
    (lambda: ours.r2([1.0], [1.0, 2.0]), "expected the same shape"),
    (lambda: ours.spearman([math.nan], [1.0]), "not a number"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input(call, message):
    with pytest.raises((ShapeError, ConfigError), match=message):
        call()
