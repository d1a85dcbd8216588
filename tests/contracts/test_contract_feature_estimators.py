"""What every registered estimator on features must do: what scikit-learn asks of its own."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from repertoire import registry

NAMES = registry.names("feature-estimators")

#: Options for the small data of these checks.
SPECS = {
    "gb-nn": "gb-nn:n_stages=4,max_iter=20",
    "gb-nn-regressor": "gb-nn-regressor:n_stages=4,max_iter=20",
    "grownet": "grownet:n_stages=2,epochs=10,corrective_epochs=2,learning_rate=0.03,random_state=0",
    "grownet-regressor": "grownet-regressor:n_stages=2,epochs=10,corrective_epochs=2,learning_rate=0.03,random_state=0",
}


def build(name: str) -> BaseEstimator:
    return registry.build("feature-estimators", SPECS.get(name, name))


def test_there_are_estimators():
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_is_public_and_documented(name):
    entry = registry.get("feature-estimators", name)
    module = importlib.import_module(entry.dotted.rpartition(".")[0])
    assert getattr(module, entry.factory.__name__) is entry.factory
    assert entry.factory.__name__ in module.__all__
    assert issubclass(entry.factory, BaseEstimator)
    assert entry.summary.endswith(".")
    assert ">>>" in entry.factory.__doc__


@parametrize_with_checks([build(name) for name in NAMES])
def test_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_learns_what_is_easy_from_one_sample_a_class(name, dtype):
    estimator = build(name)
    if not is_classifier(estimator):
        pytest.skip("no classifier")
    x = np.eye(5, 8, dtype=dtype)
    labels = np.array(["e", "a", "d", "b", "c"])
    fitted = clone(estimator).fit(x, labels)
    np.testing.assert_array_equal(fitted.predict(x + dtype(0.05)), labels)
    np.testing.assert_allclose(fitted.predict_proba(x).sum(1), 1, rtol=1e-5)
    assert list(fitted.classes_) == sorted(labels)
