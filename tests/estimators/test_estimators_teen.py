from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError
from repertoire.estimators import PrototypeCalibration


def unit(v: list[float]) -> list[float]:
    length = math.sqrt(sum(a * a for a in v))
    return [a / length for a in v] if length else v


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def mean_of(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def calibrated(new: list[float], base: list[list[float]], shift: float, temperature: float) -> list[float]:
    """The formula of the paper, class by class."""
    weights = [math.exp(temperature * dot(new, b)) for b in base]
    mixed = [sum(w / sum(weights) * b[j] for w, b in zip(weights, base, strict=True)) for j in range(len(new))]
    return [(1 - shift) * a + shift * m for a, m in zip(new, unit(mixed), strict=True)]


@settings(max_examples=20, deadline=None)
@given(
    st.integers(2, 6),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([0.0, 16.0]),
    st.integers(0, 99),
)
def test_agrees_with_the_formula(old, new, shift, temperature, seed):
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(60, 5)), generator.permutation(60) % (old + new)
    model = PrototypeCalibration(shift, temperature).partial_fit(x[y < old], y[y < old])
    model.partial_fit(x[y >= old], y[y >= old])
    means = [unit(mean_of(x[y == c].tolist())) for c in range(old + new)]
    expected = means[:old] + [calibrated(m, means[:old], shift, temperature) for m in means[old:]]
    np.testing.assert_allclose(model.prototypes(), expected, rtol=1e-12, atol=1e-12)
    queries = generator.normal(size=(9, 5))
    nearest = [max(range(old + new), key=lambda c: dot(unit(q), unit(expected[c]))) for q in queries.tolist()]
    assert model.predict(queries).tolist() == nearest


def test_what_is_known_of_base_classes_is_not_touched_by_new_ones():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(80, 6)), np.arange(80) % 8
    model = PrototypeCalibration().partial_fit(x[y < 5], y[y < 5])
    before, queries = model.prototypes(), generator.normal(size=(20, 6))
    logits = model.logits(queries)
    for c in (7, 5, 6):
        model.partial_fit(x[y == c], y[y == c])
    np.testing.assert_array_equal(model.prototypes()[:5], before)
    np.testing.assert_allclose(model.logits(queries)[:, :5], logits, rtol=1e-12)
    assert model.base_.tolist() == [True] * 5 + [False] * 3


def test_without_a_shift_it_is_the_nearest_class_mean_by_cosine_and_order_does_not_matter():
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(40, 4)), np.arange(40) % 4
    plain = PrototypeCalibration(shift=0.0).partial_fit(x[y < 2], y[y < 2]).partial_fit(x[y >= 2], y[y >= 2])
    means = np.stack([x[y == c].mean(0) for c in range(4)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_array_equal(plain.predict(x), (x @ means.T).argmax(1))
    one, other = (PrototypeCalibration().partial_fit(x[y < 2], y[y < 2]) for _ in range(2))
    for c in (2, 3):
        one.partial_fit(x[y == c], y[y == c])
        other.partial_fit(x[y == 5 - c], y[y == 5 - c])
    np.testing.assert_array_equal(one.prototypes(), other.prototypes())


def test_options_out_of_range():
    with pytest.raises(ConfigError, match=r"shift is 1\.5; expected from 0 to 1"):
        PrototypeCalibration(shift=1.5).fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(ConfigError, match="temperature is -1"):
        PrototypeCalibration(temperature=-1.0).fit([[0.0], [1.0]], [0, 1])
