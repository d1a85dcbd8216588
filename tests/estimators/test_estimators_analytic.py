from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError
from repertoire.estimators import Analytic


@settings(max_examples=12, deadline=None)
@given(st.sampled_from([0, 7, 40]), st.booleans(), st.integers(1, 25), st.integers(0, 999))
def test_any_stream_gives_the_ridge_regression_of_everything(expansion, scaled, largest, seed):
    """Samples in any order and pieces, classes mixed, repeated and new at any time; and W by one linear system."""
    generator = np.random.default_rng(seed)
    x, y = 3 * generator.normal(size=(70, 6)), generator.integers(0, 5, 70)
    model, at = Analytic(expansion, 0.3, scaled, random_state=4), 0
    while at < len(x):
        size = int(generator.integers(1, largest + 1))
        model.partial_fit(x[at : at + size], y[at : at + size])
        at += size
    h = x / np.linalg.norm(x, axis=1, keepdims=True) if scaled else x
    if expansion:
        layer = np.random.RandomState(4).standard_normal((6, expansion))
        h = np.maximum(h @ layer / (1 if scaled else 6**0.5), 0)
    targets = (y[:, None] == np.unique(y)).astype(float)
    expected = np.linalg.solve(h.T @ h + 0.3 * np.eye(h.shape[1]), h.T @ targets)
    assert np.abs(model.weight_.T - expected).max() < 1e-6 * np.abs(expected).max()
    np.testing.assert_allclose(model.logits(x), h @ expected, rtol=1e-6, atol=1e-8)


def test_what_is_kept_does_not_grow_with_the_samples():
    generator = np.random.default_rng(0)
    model = Analytic(expansion=30).partial_fit(generator.normal(size=(20, 4)), np.arange(20) % 2)
    before = {name: np.shape(value) for name, value in model.fitted_state().items()}
    model.partial_fit(generator.normal(size=(500, 4)), np.arange(500) % 2)
    assert {name: np.shape(value) for name, value in model.fitted_state().items()} == before


def test_options_out_of_range():
    with pytest.raises(ConfigError, match="ridge is 0; expected a positive number"):
        Analytic(ridge=0).fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(ConfigError, match="expansion is -1"):
        Analytic(expansion=-1).fit([[0.0], [1.0]], [0, 1])
