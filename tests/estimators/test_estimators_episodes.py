"""Episodes, and accuracy over them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.dummy import DummyClassifier

from repertoire.errors import ConfigError, DataError, ShapeError
from repertoire.estimators import FrozenEmbeddingClassifier, NearestCentroid, episodes, evaluate_episodes


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_an_episode_has_ways_classes_and_disjoint_sets(ways, shots, queries, seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(-1, 5) * 7, 6))
    labels[labels < 0] = -1
    for support, query in episodes(labels, ways, shots, queries, count=5, seed=seed):
        assert support.dtype == query.dtype == np.int64
        drawn = labels[support].reshape(ways, shots)
        assert len(set(drawn[:, 0])) == ways
        assert (drawn == drawn[:, :1]).all()
        assert (labels[query].reshape(ways, queries) == drawn[:, :1]).all()
        assert len({*support, *query}) == ways * (shots + queries)
        assert (labels[support] >= 0).all()


def test_seeds():
    labels = np.arange(200) % 10

    def drawn(seed: int) -> np.ndarray:
        return np.array([np.concatenate(pair) for pair in episodes(labels, count=4, queries=5, seed=seed)])

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert not np.array_equal(drawn(1), drawn(2))
    assert len(np.unique(drawn(1), axis=0)) == 4


def test_all_classes_and_images_are_drawn_alike():
    labels = np.repeat(np.arange(4), 5)
    counts = np.zeros(20)
    for support, _ in episodes(labels, ways=2, shots=1, queries=1, count=4000):
        counts[support] += 1
    assert stats.chisquare(counts).pvalue > 1e-4


def test_takes_tensors():
    labels = torch.arange(60) % 6
    for ours, theirs in zip(
        episodes(labels, queries=3, count=3), episodes(labels.numpy(), queries=3, count=3), strict=True
    ):
        np.testing.assert_array_equal(ours[0], theirs[0])


def test_classes_with_too_few_images_are_not_drawn_and_are_named_if_missed():
    labels = np.repeat([0, 1, 2, 3], [10, 10, 3, 1])
    for support, _ in episodes(labels, ways=2, shots=1, queries=4, count=20):
        assert set(labels[support]) == {0, 1}
    with pytest.raises(DataError, match=r"3 classes of 5 images.*2 of 4 classes have as many: class 2 has 3, 3 has 1"):
        episodes(labels, ways=3, shots=1, queries=4)
    with pytest.raises(DataError, match="0 of 0 classes have as many; lower ways"):
        episodes(np.array([-1, -1]), ways=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"ways": 1}, "ways is 1"), ({"shots": 0}, "shots is 0"), ({"queries": 0}, "queries"), ({"count": 0}, "count")],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises(ConfigError, match=message):
        episodes(np.arange(100) % 5, **options)


@pytest.mark.parametrize("labels", [np.zeros((3, 2), np.int64), np.zeros(3)])
def test_labels_that_do_not_fit(labels):
    with pytest.raises(ShapeError, match=r"integers \[N\]"):
        episodes(labels)


def blobs(noise: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 30)
    return rng.normal(size=(8, 16))[labels] + noise * rng.normal(size=(240, 16)), labels


@pytest.mark.parametrize("estimator", [FrozenEmbeddingClassifier(), NearestCentroid()])
def test_scores_are_those_of_a_loop_over_the_episodes(estimator):
    features, labels = blobs(1.0)
    result = evaluate_episodes(features, labels, estimator, shots=2, count=12, seed=3)
    expected = []
    for support, query in episodes(labels, 5, 2, 15, 12, 3):
        model = type(estimator)().fit(features[support], labels[support])
        expected.append((model.predict(features[query]) == labels[query]).mean())
    np.testing.assert_allclose(result.each, expected)
    assert result.mean == pytest.approx(np.mean(expected))
    low, high = stats.t.interval(0.95, 11, loc=np.mean(expected), scale=stats.sem(expected))
    assert result.interval == pytest.approx((low, high))
    assert 0.3 < result.mean < 1
    assert not hasattr(estimator, "classes_")
    tensors = evaluate_episodes(
        torch.from_numpy(features), torch.from_numpy(labels), estimator, shots=2, count=12, seed=3
    )
    np.testing.assert_array_equal(tensors.each, result.each)


def test_more_shots_are_better_and_guessing_is_chance():
    features, labels = blobs(1.5)
    one, five = (evaluate_episodes(features, labels, NearestCentroid(), shots=s, count=60) for s in (1, 5))
    assert five.interval[0] > one.interval[1]
    guess = evaluate_episodes(features, labels, DummyClassifier(strategy="most_frequent"), count=5)
    np.testing.assert_allclose(guess.each, 0.2)
    assert guess.interval == pytest.approx((0.2, 0.2))


def test_a_single_episode_has_no_interval():
    features, labels = blobs(1.0)
    result = evaluate_episodes(features, labels, NearestCentroid(), count=1)
    assert np.isnan(result.interval).all()
    assert str(evaluate_episodes(features, labels, DummyClassifier(), count=3)) == "20.00% [20.00%, 20.00%], 3 episodes"


@pytest.mark.parametrize("features", [np.zeros((9, 3)), np.zeros(240)])
def test_features_that_do_not_fit(features):
    with pytest.raises(ShapeError, match=r"features must be \[240, d\]"):
        evaluate_episodes(features, blobs(1.0)[1], NearestCentroid())
