"""The three maps from features to descriptions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from worlds import combined

from repertoire.errors import ConfigError
from repertoire.zeroshot import ESZSL, AttributeMatch, EmbeddingRegression


def test_eszsl_is_where_gradient_descent_ends():
    """The penalised squared error of the scores, as the paper writes it, minimised by another road."""
    x, y, descriptions, seen = combined(sides=3, width=5, each=4)
    model = ESZSL(ridge=0.05, description_ridge=0.1).fit(x[seen], y[seen], descriptions)
    z = torch.from_numpy((x[seen] - model._centre) / model._length)
    classes, labels = np.unique(y[seen], return_inverse=True)
    s = torch.from_numpy(descriptions[classes] / np.linalg.norm(descriptions[classes], axis=1, keepdims=True))
    targets = 2 * torch.eye(len(classes), dtype=torch.float64)[torch.from_numpy(labels)] - 1
    v = torch.zeros(5, 6, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([v], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-14)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        error = (z @ v @ s.T - targets).square().sum() / (len(z) * len(s))
        towards, back = (v @ s.T).square().sum() / len(s), (z @ v).square().sum() / len(z)
        value = error + 0.05 * towards + 0.1 * back + 0.05 * 0.1 * v.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    np.testing.assert_allclose(model.coef_, v.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("model", [ESZSL(), EmbeddingRegression(), AttributeMatch()], ids=lambda m: type(m).__name__)
def test_perfect_attributes_tell_all_unseen_classes_apart(model):
    """The features are the attributes themselves, turned."""
    generator = np.random.default_rng(0)
    descriptions = np.concatenate([np.eye(4)[np.arange(16) // 4], np.eye(4)[np.arange(16) % 4]], 1)
    turn, _ = np.linalg.qr(generator.normal(size=(8, 8)))
    y = np.repeat(np.arange(16), 3)
    seen = y // 4 != y % 4
    model.fit((descriptions @ turn)[y[seen]], y[seen], descriptions)
    unseen = np.arange(16)[::5]
    np.testing.assert_array_equal(model.predict((descriptions @ turn)[unseen], descriptions[unseen]), np.arange(4))


def test_attribute_match_is_the_product_of_its_attributes():
    x, y, descriptions, seen = combined(noise=1.0)
    model = AttributeMatch(ridge=0.1).fit(x[seen], y[seen], descriptions)
    prior = descriptions[np.unique(y[seen])].mean(0)
    row = (x[0] - model._centre) / model._length
    expected = []
    for described in descriptions:
        total = 0.0
        for m, a in enumerate(described):
            p = 1 / (1 + math.exp(-float(row @ model.coef_[m] + model.intercept_[m])))
            total += math.log(p / prior[m]) if a else math.log((1 - p) / (1 - prior[m]))
        expected.append(total)
    np.testing.assert_allclose(model.decision_function(x[:1])[0], expected, rtol=1e-6)


def test_an_attribute_of_all_seen_classes_is_left_out():
    x, y, descriptions, seen = combined()
    whole = np.column_stack([descriptions, np.ones(16)])
    model = AttributeMatch().fit(x[seen], y[seen], whole)
    assert model.used_.tolist() == list(range(8))
    with pytest.raises(ConfigError, match="same attributes"):
        AttributeMatch().fit(x[seen], y[seen], np.ones((16, 2)))


def test_the_nearest_description_by_both_measures():
    x, y, descriptions, seen = combined()
    for nearness in ("cosine", "euclidean"):
        model = EmbeddingRegression(ridge=0.01, nearness=nearness).fit(x[seen], y[seen], descriptions)
        found = (x[:5] - model._centre) / model._length @ model.coef_.T + model.intercept_
        lengths = np.linalg.norm(descriptions, axis=1, keepdims=True)
        away = found[:, None] - (descriptions / lengths)[None]
        expected = -np.square(away).sum(2)
        if nearness == "cosine":
            expected = (found / np.linalg.norm(found, axis=1, keepdims=True)) @ (descriptions / lengths).T
        np.testing.assert_allclose(model.decision_function(x[:5]), expected, atol=1e-12)


def test_a_class_is_seen_by_its_description_and_each_is_seen_once():
    x, y, descriptions, seen = combined()
    model = ESZSL().fit(x[seen], y[seen], descriptions)
    twice = np.concatenate([descriptions[1:2], descriptions[1:2], descriptions[:1]])
    assert model.is_seen(twice).tolist() == [True, False, False]
    # A constant taken from seen classes leaves the unseen ones alone.
    assert set(model.predict(x, gamma=1e9)) <= set(range(0, 16, 5))
    assert not set(model.predict(x, gamma=-1e9)) & set(range(0, 16, 5))


@pytest.mark.parametrize("options", [{"ridge": 0.0}, {"description_ridge": -1.0}])
def test_options_out_of_range(options):
    with pytest.raises(ConfigError, match="must be positive"):
        ESZSL(**options)


def test_tensors_of_a_network_are_taken_as_they_come():
    generator = torch.Generator().manual_seed(0)
    x, described = torch.randn(40, 6, generator=generator), torch.eye(4)
    y = np.arange(40) % 4
    plain = ESZSL().fit(x.numpy(), y, described.numpy()).decision_function(x.numpy())
    np.testing.assert_array_equal(ESZSL().fit(x.requires_grad_(), y, described).decision_function(x), plain)
    half = x.detach().bfloat16()
    found = ESZSL().fit(half, y, described).decision_function(half)
    np.testing.assert_array_equal(found, ESZSL().fit(half.float(), y, described).decision_function(half.float()))
