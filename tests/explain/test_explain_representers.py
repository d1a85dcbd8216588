"""Representer points: the model against scikit-learn's, the decomposition against the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.explain import fit_linear, nearest_examples, representers


def data(count: int = 60, width: int = 8, ways: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, width, generator=generator, dtype=torch.float64)
    scores = x @ torch.randn(width, ways, generator=generator, dtype=torch.float64)
    y = (scores + torch.randn(count, ways, generator=generator, dtype=torch.float64)).argmax(1)
    y[:ways] = torch.arange(ways)
    return x, y


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("ways", [2, 4])
def test_the_model_is_the_minimum(penalty, ways):
    x, y = data(ways=ways)
    strength = 0.05
    model = fit_linear(x, y, strength=strength, penalty=penalty)

    def value(coef: Tensor, intercept: Tensor) -> float:
        logits = x @ coef.T + intercept
        if ways == 2:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], y.double())
        else:
            loss = torch.nn.functional.cross_entropy(logits, y)
        size = coef.abs().sum() if penalty == "l1" else coef.square().sum() / 2
        return float(loss + strength * size)

    best = value(model.coef, model.intercept)
    generator = torch.Generator().manual_seed(1)
    for scale in (1e-3, 1e-2, 1e-1):
        step = scale * torch.randn(model.coef.shape, generator=generator, dtype=torch.float64)
        assert value(model.coef + step, model.intercept) > best
        one = scale * torch.eye(len(model.intercept), dtype=torch.float64)[0]  # all together change nothing in softmax
        assert value(model.coef, model.intercept + one) > best
    assert model.residual <= 1e-9 * strength


@pytest.mark.filterwarnings("ignore:.*penalty.*")
@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_agrees_with_scikit_learn(penalty):
    x, y = data(count=80)
    strength = 0.02
    inverse = 1 / (strength * len(x))
    ratio = 1.0 if penalty == "l1" else 0.0
    theirs = LogisticRegression(
        penalty="elasticnet", l1_ratio=ratio, C=inverse, solver="saga", tol=1e-8, max_iter=20_000
    )
    theirs.fit(x.numpy(), y.numpy())
    ours = fit_linear(x, y, strength=strength, penalty=penalty)
    np.testing.assert_allclose(ours.coef.numpy(), theirs.coef_, atol=1e-4)
    np.testing.assert_allclose(ours.intercept.numpy(), theirs.intercept_, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(st.integers(12, 40), st.integers(2, 12), st.integers(2, 4), st.sampled_from(["l1", "l2"]), st.integers(0, 99))
def test_shares_sum_to_the_logit(count, width, ways, penalty, seed):
    x, y = data(count, width, ways, seed)
    model = fit_linear(x, y, strength=0.05, penalty=penalty)
    found = representers(model, x, y)
    queries = torch.randn(5, width, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    logits = model(queries)
    for j in range(logits.shape[1]):
        shares = found.contributions(queries, j)
        torch.testing.assert_close(shares.sum(1) + model.intercept[j], logits[:, j], atol=1e-6, rtol=1e-6)
        # One by one, from the theorem.
        coef = model.coef[j]
        for m in range(2):
            for i in range(3):
                slope = torch.sigmoid(model(x[i : i + 1]))[0, 0] - y[i] if ways == 2 else None
                if slope is None:
                    slope = model(x[i : i + 1]).softmax(1)[0, j] - float(y[i] == j)
                weight = coef.abs() if penalty == "l1" else torch.ones_like(coef)
                expected = -slope / (count * 0.05) * (weight * x[i] * queries[m]).sum()
                torch.testing.assert_close(shares[m, i], expected)


def test_top_is_the_largest_of_all(monkeypatch):
    x, y = data(50, 6, 3)
    found = representers(fit_linear(x, y), x, y)
    queries, targets = torch.randn(7, 6), torch.arange(7) % 3
    every = found.contributions(queries, targets)
    for entries in (10**9, 1, 91):
        monkeypatch.setattr("repertoire.explain.examples._representers.ENTRIES", entries)
        for largest in (True, False):
            values, indices = found.top(queries, targets, 4, largest=largest)
            torch.testing.assert_close(values, every.topk(4, largest=largest).values)
            torch.testing.assert_close(every.gather(1, indices), values)


def test_features_that_the_model_drops_do_not_count():
    x, y = data(60, 8)
    model = fit_linear(x, y, strength=0.1)
    dropped = (model.coef[0] == 0).nonzero().flatten()
    assert 0 < len(dropped) < 8
    found, queries = representers(model, x, y), torch.randn(3, 8, dtype=torch.float64)
    changed = queries.clone()
    changed[:, dropped] += 5
    torch.testing.assert_close(found.contributions(queries, 0), found.contributions(changed, 0))


def test_a_penalty_that_leaves_nothing_and_a_start():
    x, y = data()
    empty = fit_linear(x, y, strength=100.0)
    assert not empty.coef.any()
    assert not representers(empty, x, y).contributions(x, 0).any()
    model = fit_linear(x, y, strength=0.03)
    again = fit_linear(x, y, strength=0.03, start=model, max_iter=10)
    torch.testing.assert_close(again.coef, model.coef, atol=1e-8, rtol=1e-6)
    with pytest.warns(UserWarning, match="of its strength from a minimum"):
        fit_linear(x, y, strength=0.03, max_iter=2)


def test_nearest_examples():
    examples = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    queries = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    values, indices = nearest_examples(queries, examples, 3)
    cosines = torch.nn.functional.normalize(queries) @ torch.nn.functional.normalize(examples).T
    torch.testing.assert_close(values, cosines.topk(3).values)
    assert torch.equal(indices, cosines.topk(3).indices)
    by_distance = nearest_examples(queries, examples, 3, similarity="euclidean")
    assert torch.equal(by_distance.indices, torch.cdist(queries, examples).topk(3, largest=False).indices)


def test_bad_input():
    x, y = data()
    with pytest.raises(ConfigError, match="penalty must be"):
        fit_linear(x, y, penalty="l3")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="strength must be positive"):
        fit_linear(x, y, strength=0.0)
    with pytest.raises(ShapeError, match="two or more"):
        fit_linear(x, torch.zeros(60, dtype=torch.int64))
    with pytest.raises(ShapeError, match="targets must be int64"):
        fit_linear(x, y.float())
    model = fit_linear(x, y)
    with pytest.raises(ShapeError, match="data call for"):
        representers(model, x[:, :4], y)
    found = representers(model, x, y)
    with pytest.raises(ShapeError, match="queries must be"):
        found.contributions(x[:, :4], 0)
    with pytest.raises(ShapeError, match="logits from 0 to 0"):
        found.contributions(x, 1)
    with pytest.raises(ShapeError, match="k must be"):
        found.top(x, 0, 61)
