from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.base import is_classifier
from sklearn.exceptions import NotFittedError

from repertoire import registry
from repertoire.errors import CheckpointError, ConfigError, RunError
from repertoire.estimators import FeatureEstimator, NearestCentroid, load_estimator, save_estimator

SMALL = {
    "gb-nn": "gb-nn:n_stages=3,max_iter=20", "gb-nn-regressor": "gb-nn-regressor:n_stages=3,max_iter=20",
    "grownet": "grownet:n_stages=3,epochs=2", "grownet-regressor": "grownet-regressor:n_stages=3,propagate=false",
}  # fmt: skip


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("labels", [int, str])
@pytest.mark.parametrize("name", registry.names("feature-estimators"))
def test_every_estimator_answers_the_same_after_saving_and_loading(name, labels, classes, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 5))
    estimator = registry.build("feature-estimators", SMALL.get(name, name))
    y = np.arange(24) % classes if is_classifier(estimator) else x @ np.arange(5.0)
    fitted = estimator.fit(x, y.astype(labels) if is_classifier(estimator) else y)
    save_estimator(fitted, tmp_path / "a")
    loaded = load_estimator(tmp_path / "a")
    assert type(loaded) is type(fitted)
    assert loaded.get_params() == fitted.get_params()
    for ask in ("predict", "predict_proba", "decision_function"):
        if hasattr(fitted, ask):
            np.testing.assert_array_equal(getattr(loaded, ask)(x), getattr(fitted, ask)(x))
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["estimator.json", "estimator.safetensors"]


def test_what_cannot_be_saved_says_why(tmp_path):
    with pytest.raises(NotFittedError):
        save_estimator(NearestCentroid(), tmp_path)

    class Own(FeatureEstimator):
        def fit(self, X, y=None):
            self.done_ = True
            return self

    with pytest.raises(ConfigError, match="Own is not registered"):
        save_estimator(Own().fit([[0]]), tmp_path)
    grown = registry.build("feature-estimators", "grownet:n_stages=1,epochs=1")
    grown.random_state = np.random.RandomState(0)
    with pytest.raises(ConfigError, match="options of grownet cannot be written"):
        save_estimator(grown.fit([[0.0], [1.0]], [0, 1]), tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_loaded_says_why(tmp_path):
    with pytest.raises(RunError, match="holds no estimator"):
        load_estimator(tmp_path)
    save_estimator(NearestCentroid().fit([[0.0], [1.0]], [0, 1]), tmp_path)
    record = json.loads((tmp_path / "estimator.json").read_text())
    (tmp_path / "estimator.json").write_text(json.dumps(record | {"format": 99}))
    with pytest.raises(RunError, match="newer version"):
        load_estimator(tmp_path)
    (tmp_path / "estimator.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"estimator\.json is damaged"):
        load_estimator(tmp_path)
    (tmp_path / "estimator.json").write_text(json.dumps(record))
    tensors = (tmp_path / "estimator.safetensors").read_bytes()
    for spoilt in (tensors[: len(tensors) // 2], b""):
        (tmp_path / "estimator.safetensors").write_bytes(spoilt)
        with pytest.raises(CheckpointError, match=r"estimator\.safetensors is damaged"):
            load_estimator(tmp_path)
