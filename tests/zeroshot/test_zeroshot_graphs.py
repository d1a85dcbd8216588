"""Class graphs, generated features, and several views of unlabelled rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.cross_decomposition import CCA
from worlds import combined

from repertoire.errors import ConfigError, ShapeError
from repertoire.zeroshot import (
    EmbeddingRegression,
    FeatureGenerator,
    GraphPropagation,
    MultiViewPropagation,
    graph_layer,
    multi_view_cca,
)


def test_a_graph_layer_is_the_mean_over_neighbours():
    generator = np.random.default_rng(0)
    graph = generator.integers(0, 2, (6, 6))
    graph = np.triu(graph, 1) + np.triu(graph, 1).T
    nodes = generator.normal(size=(6, 3))
    degree = [1 + sum(row) for row in graph]
    expected = np.zeros((6, 3))
    for i in range(6):
        for j in range(6):
            if i == j or graph[i, j]:
                expected[i] += nodes[j] / (degree[i] * degree[j]) ** 0.5
    np.testing.assert_allclose(graph_layer(graph, nodes), expected)
    with pytest.raises(ShapeError, match="symmetric"):
        graph_layer([[0, 1], [0, 0]], nodes[:2])
    with pytest.raises(ShapeError, match=r"graph must be numbers \[2, 2\]"):
        graph_layer([[0, 1]], nodes[:2])


def test_what_a_graph_knows_reaches_classes_that_descriptions_say_nothing_of():
    """Classes are joined that have a colour or a shape in common; the descriptions of unseen ones are lost."""
    x, y, descriptions, seen = combined()
    unseen = np.arange(16)[::5]
    graph = (descriptions @ descriptions.T) * (1 - np.eye(16))
    descriptions[unseen] = 0.0
    right = []
    for given in (graph, np.zeros((16, 16))):
        model = GraphPropagation(hidden=64, steps=200).fit(x[seen], y[seen], descriptions, graph=given)
        scores = model.decision_function(x[~seen])[:, unseen]
        right.append((unseen[scores.argmax(1)] == y[~seen]).mean())
    assert right[0] > 0.8
    assert right[1] == 0.25


def test_a_class_that_comes_later_joins_its_neighbours():
    x, y, descriptions, seen = combined()
    model = GraphPropagation(hidden=64, steps=200).fit(x[seen], y[seen], descriptions[:15])
    alone = model.decision_function(x[y == 15], descriptions)
    assert alone.shape == (12, 16)
    assert (alone[:, ::5].argmax(1) == 3).mean() > 0.8
    # Some of the classes that were there keep their scores, whoever else is asked for.
    np.testing.assert_allclose(
        model.decision_function(x[:3], descriptions[4:9]), model.decision_function(x[:3])[:, 4:9]
    )


def test_densities_are_those_of_gaussians_and_so_is_what_is_drawn():
    x, y, descriptions, seen = combined(width=3, each=30)
    model = FeatureGenerator(shrink=0.2).fit(x[seen], y[seen], descriptions)
    row = (x[0] - model._centre) / model._length
    scores = model.decision_function(x[:1])[0]
    described = descriptions / np.linalg.norm(descriptions, axis=1, keepdims=True)
    for c in (0, 1, 5):
        if c in model.seen_:
            mean, covariance = model.means_[list(model.seen_).index(c)], model.within_
        else:
            mean, covariance = model.coef_ @ described[c] + model.intercept_, model.within_ + model.missed_
        expected = multivariate_normal(mean, covariance).logpdf(row) + 1.5 * np.log(2 * np.pi)
        assert scores[c] == pytest.approx(expected, rel=1e-6)
    drawn = model.generate(descriptions[:2], 20000)
    np.testing.assert_allclose(drawn[1].mean(0), x[y == 1].mean(0), atol=0.05)
    spread = np.cov(((drawn[0] - model._centre) / model._length).T)
    np.testing.assert_allclose(spread, model.within_ + model.missed_, atol=0.02)


def test_what_the_regression_misses_is_measured_on_the_class_left_out():
    x, y, descriptions, seen = combined(noise=0.5, width=4)
    model = FeatureGenerator(ridge=1e-9, shrink=0.0).fit(x[seen], y[seen], descriptions)
    described = (descriptions / np.linalg.norm(descriptions, axis=1, keepdims=True))[model.seen_]
    missed = np.zeros((4, 4))
    for c in range(12):
        rest = np.delete(np.arange(12), c)
        inputs = np.column_stack([described, np.ones(12)])
        found, *_ = np.linalg.lstsq(inputs[rest], model.means_[rest], rcond=None)
        away = model.means_[c] - inputs[c] @ found
        missed += np.outer(away, away) / 12
    np.testing.assert_allclose(model.missed_, missed + 1e-6 * np.eye(4), rtol=1e-3, atol=1e-6)


def test_two_views_have_the_canonical_correlations():
    generator = np.random.default_rng(0)
    common = generator.normal(size=(200, 2))
    views = [common @ generator.normal(size=(2, w)) + generator.normal(size=(200, w)) for w in (4, 3)]
    values, directions = multi_view_cca(views, ridge=1e-12)
    theirs = CCA(3, scale=False, max_iter=5000, tol=1e-10).fit(*views)
    left, right = theirs.transform(*views)
    expected = [np.corrcoef(left[:, k], right[:, k])[0, 1] for k in range(3)]
    np.testing.assert_allclose(values[:3] - 1, expected, atol=1e-4)
    projected = [(view - view.mean(0)) @ w[:, 0] for view, w in zip(views, directions, strict=True)]
    assert np.corrcoef(*projected)[0, 1] == pytest.approx(values[0] - 1, abs=1e-6)
    assert len(values) == 7
    with pytest.raises(ShapeError, match="same rows"):
        multi_view_cca([np.ones((3, 2)), np.ones((4, 2))])


def test_labels_spread_as_the_closed_form_says_and_descriptions_keep_their_own():
    x, y, descriptions, seen = combined(each=4)
    model = MultiViewPropagation(views=(4, 4), neighbours=3, alpha=0.8).fit(x[seen], y[seen], descriptions)
    unseen = descriptions[::5]
    places = model._places((x[~seen] - model._centre) / model._length, unseen)
    found = model.propagate(places, 4)
    count = len(places[0])
    spread = np.zeros((count, count))
    for first in places:
        for second in places:
            joined = np.zeros((count, count))
            for q in range(count):
                alike = second @ first[q]
                for n in np.argsort(-alike, kind="stable")[:3]:
                    joined[q, n] = max(alike[n], 0.0)
                joined[q, q] = 1.0
            edges, nodes = joined.sum(1), joined.sum(0)
            half = joined / np.sqrt(edges)[:, None] / np.sqrt(nodes)
            spread += half.T @ half / len(places) ** 2
    start = np.eye(count)[:, -4:]
    np.testing.assert_allclose(found, 0.2 * np.linalg.solve(np.eye(count) - 0.8 * spread, start), atol=1e-6)
    np.testing.assert_array_equal(found[-4:].argmax(1), np.arange(4))


def test_unlabelled_rows_mend_a_map_that_fits_unseen_classes_poorly():
    """Rows of unseen classes are shifted, so that each lies nearer to another description, and all shift alike."""
    x, y, descriptions, seen = combined(noise=0.15, each=15)
    generator = np.random.default_rng(1)
    x = x + 2.5 * (~seen)[:, None] * generator.normal(size=12) / 12**0.5
    right = []
    for model in (MultiViewPropagation(views=(4, 4)), EmbeddingRegression()):
        found = model.fit(x[seen], y[seen], descriptions).predict(x[~seen], descriptions[::5])
        right.append((5 * found == y[~seen]).mean())
    assert right[0] >= right[1]
    assert right[0] > 0.9


def test_views_must_add_up():
    x, y, descriptions, seen = combined()
    with pytest.raises(ConfigError, match="add up to the 8 columns"):
        MultiViewPropagation(views=(4, 3)).fit(x[seen], y[seen], descriptions)
    assert MultiViewPropagation().fit(x[seen], y[seen], descriptions).predict(x[:0]).shape == (0,)
