"""The classifiers on frozen features against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from repertoire import registry
from repertoire.estimators import FrozenEmbeddingClassifier, NearestCentroid


def task(classes: int, rows: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, rows)])
    return rng.normal(size=(len(labels), width)), labels


def unit(x: np.ndarray) -> np.ndarray:
    return np.array([row / np.sqrt((row**2).sum()) for row in x])


@pytest.mark.parametrize("C", [0.1, 1.0, 10.0])
def test_logistic_regression_minimises_the_objective(C):
    x, y = task(3, 20, 4, 0)
    z = unit(x)

    def objective(flat: np.ndarray) -> float:
        w, b = flat[:12].reshape(3, 4), flat[12:]
        total = 0.5 * (w**2).sum()
        for i in range(len(z)):
            logits = w @ z[i] + b
            total += C * (np.log(np.exp(logits).sum()) - logits[y[i]])
        return total

    model = FrozenEmbeddingClassifier(C=C).fit(x, y)
    best = minimize(objective, np.zeros(15), method="BFGS", options={"gtol": 1e-7}).fun
    assert objective(np.concatenate([model.coef_.ravel(), model.intercept_])) == pytest.approx(best, rel=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 4), st.integers(0, 20), st.integers(1, 6), st.booleans(), st.integers(0, 99))
def test_probabilities_are_those_of_the_weights(classes, rows, width, normalize, seed):
    x, y = task(classes, rows, width, seed)
    model = FrozenEmbeddingClassifier(normalize=normalize).fit(x, y)
    logits = (unit(x) if normalize else x) @ model.coef_.T + model.intercept_
    if classes == 2:
        logits = np.concatenate([-logits, logits], axis=1) / 2
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(x), expected, rtol=1e-6)
    # Of classes that tie, rounding says which comes first.
    chosen = expected[np.arange(len(x)), model.predict(x)]
    np.testing.assert_allclose(chosen, expected.max(1), rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(0, 20), st.integers(1, 6), st.booleans(), st.integers(0, 99))
def test_nearest_centroid_equals_the_definition(classes, rows, width, normalize, seed):
    x, y = task(classes, rows, width, seed)
    z = unit(x) if normalize else x
    model = NearestCentroid(normalize=normalize).fit(x, y)
    means = np.array([np.mean([z[i] for i in range(len(z)) if y[i] == k], axis=0) for k in range(classes)])
    np.testing.assert_allclose(model.centroids_, means, atol=1e-12)
    weights = np.array([[np.exp(-((row - mean) ** 2).sum()) for mean in means] for row in z])
    np.testing.assert_allclose(model.predict_proba(x), weights / weights.sum(1, keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(model.predict(x), weights.argmax(1))


@pytest.mark.parametrize("estimator", [FrozenEmbeddingClassifier(), NearestCentroid()])
def test_length_of_the_features_does_not_matter(estimator):
    x, y = task(3, 30, 5, 0)
    scale = np.random.default_rng(1).uniform(0.1, 10, (len(x), 1))
    np.testing.assert_allclose(
        estimator.fit(x, y).predict_proba(x * 2), estimator.fit(x * scale, y).predict_proba(x), rtol=1e-4
    )
    assert np.isfinite(estimator.predict_proba(np.zeros((1, 5)))).all()


def test_goes_into_a_pipeline_and_is_built_from_a_spec():
    x, y = task(3, 30, 5, 0)
    assert make_pipeline(StandardScaler(), FrozenEmbeddingClassifier()).fit(x, y).score(x, y) > 0.4
    assert registry.build("feature-estimators", "frozen-embedding:C=0.5,normalize=false").C == 0.5
