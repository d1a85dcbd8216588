"""What every registered estimator on features must do: what scikit-learn asks of its own."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from repertoire import fewshot, registry

NAMES = registry.names("feature-estimators")


def test_there_are_estimators():
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_is_public_and_documented(name):
    entry = registry.get("feature-estimators", name)
    assert getattr(fewshot, entry.factory.__name__) is entry.factory
    assert entry.factory.__name__ in fewshot.__all__
    assert issubclass(entry.factory, BaseEstimator)
    assert entry.summary.endswith(".")
    assert ">>>" in entry.factory.__doc__


@parametrize_with_checks([registry.build("feature-estimators", name) for name in NAMES])
def test_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_learns_what_is_easy_from_one_sample_a_class(name, dtype):
    estimator = registry.build("feature-estimators", name)
    if not is_classifier(estimator):
        pytest.skip("no classifier")
    x = np.eye(5, 8, dtype=dtype)
    labels = np.array(["e", "a", "d", "b", "c"])
    fitted = clone(estimator).fit(x, labels)
    np.testing.assert_array_equal(fitted.predict(x + dtype(0.05)), labels)
    np.testing.assert_allclose(fitted.predict_proba(x).sum(1), 1, rtol=1e-5)
    assert list(fitted.classes_) == sorted(labels)
