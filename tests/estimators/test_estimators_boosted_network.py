"""The boosted hidden layer: the algorithm written out in NumPy, and what the paper promises of the result."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax
from sklearn.datasets import load_iris

from repertoire.errors import ConfigError
from repertoire.estimators import BoostedNetworkClassifier, BoostedNetworkRegressor
from repertoire.estimators.boosted._neurons import Neurons, fit_neurons, loss_and_gradient

X, LABELS = load_iris(return_X_y=True)
QUICK = {"n_stages": 5, "n_neurons": 3, "max_iter": 30, "random_state": 0}


def reference(network, x, raw_start, residual, curvature) -> list[np.ndarray]:
    """Scores after each stage, from the blocks that were fitted: only the steps are computed anew."""
    scores, found = np.tile(raw_start, (len(x), 1)), []
    for t in range(network.n_stages_):
        own = slice(t * network.n_neurons, (t + 1) * network.n_neurons)
        h = expit(x @ network._weight[own].numpy().T + network._bias[own].numpy())
        block = h @ network._out_weight[:, own].numpy().T
        block = block + (network._out_bias[t + 1] - network._out_bias[t]).numpy()
        r, bend = residual(scores), curvature(scores)
        # What was added is a multiple of what was fitted, and the Newton step does not depend on the multiple.
        step = (block * r).sum() / (block**2 * bend).sum()
        found.append((scores.copy(), block, step))
        scores = scores + block
    return found


def test_each_stage_is_added_with_a_newton_step_for_several_classes():
    network = BoostedNetworkClassifier(learning_rate=0.3, **QUICK).fit(X, LABELS)
    onehot = np.eye(3)[LABELS]
    start = np.log(onehot.mean(0))
    p = lambda scores: softmax(scores, axis=1)  # noqa: E731
    stages = reference(network, X, start, lambda s: onehot - p(s), lambda s: p(s) * (1 - p(s)))
    assert len(stages) == 5
    for _, _, step in stages:
        # A block that was added with the share 0.3 of the full step is 1 / 0.3 times short of it.
        assert step == pytest.approx(1 / 0.3)


def test_each_stage_is_added_with_a_newton_step_for_two_classes():
    x, y = X[50:], LABELS[50:]
    network = BoostedNetworkClassifier(learning_rate=0.5, **QUICK).fit(x, y)
    target = (y == 2)[:, None].astype(float)
    stages = reference(network, x, [0.0], lambda s: target - expit(s), lambda s: expit(s) * (1 - expit(s)))
    for _, _, step in stages:
        assert step == pytest.approx(1 / 0.5)


def test_a_stage_of_the_regressor_is_the_least_squares_fit_to_what_is_left():
    y = X[:, 0] ** 2
    network = BoostedNetworkRegressor(learning_rate=1.0, n_stages=4, n_neurons=3, random_state=0).fit(X[:, 1:], y)
    errors = [np.mean((y - p) ** 2) for p in network.staged_predict(X[:, 1:])]
    assert network.predict(X[:, 1:], stages=0) == pytest.approx(y.mean())
    assert all(b < a for a, b in zip([y.var(), *errors], errors, strict=False))


@pytest.mark.parametrize("activation", ["logistic", "tanh", "relu"])
def test_gradient_of_the_neurons(activation):
    generator = torch.Generator().manual_seed(0)
    x, targets = (torch.randn(7, n, generator=generator, dtype=torch.float64) for n in (4, 2))
    flat = torch.randn(3 * 4 + 3 + 2 * 3 + 2, generator=generator, dtype=torch.float64, requires_grad=True)
    loss, gradient = loss_and_gradient(flat, (3, 4, 2), x, targets, activation, 0.3)
    neurons = Neurons.unpack(flat, (3, 4, 2))
    decay = 0.3 / 7 * (neurons.weight.square().sum() + neurons.out_weight.square().sum()) / 2
    expected = (neurons(x, activation) - targets).square().sum(1).mean() / 2 + decay
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, flat)[0])


@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_neurons_fit_what_neurons_can(solver):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 2, generator=generator, dtype=torch.float64)
    targets = (2 * x[:, :1]).tanh()
    fitted, iterations = fit_neurons(
        x, targets, 3, activation="tanh", solver=solver, max_iter=500, alpha=0.0, generator=generator
    )
    assert 1 <= iterations <= 500
    assert (fitted(x, "tanh") - targets).square().mean() < (1e-3 if solver == "lbfgs" else 0.4)


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("activation", ["logistic", "tanh", "relu"])
def test_the_network_is_one_hidden_layer_on_raw_features(two, activation):
    x, y = (X[50:], LABELS[50:]) if two else (X, LABELS)
    network = BoostedNetworkClassifier(activation=activation, **QUICK).fit(x * [1, 100, 1, 0.01] + 7, y)
    x = x * [1, 100, 1, 0.01] + 7
    for stages in (None, 3, 0):
        module = network.to_module(stages)
        hidden, _, out = module
        assert hidden.out_features == (5 if stages is None else stages) * 3
        found = module(torch.from_numpy(x).float()).numpy()
        expected = network.decision_function(x, stages=stages)
        np.testing.assert_allclose(found[:, 0] if two else found, expected, rtol=2e-3, atol=2e-3)
        assert out.out_features == (1 if two else 3)


def test_the_network_of_the_regressor_answers_in_the_units_of_the_target():
    y = 1000 + 50 * X[:, 0]
    network = BoostedNetworkRegressor(**QUICK).fit(X[:, 1:], y)
    module = network.to_module(2)
    found = module(torch.from_numpy(X[:, 1:]).float())[:, 0].numpy()
    np.testing.assert_allclose(found, network.predict(X[:, 1:], stages=2), rtol=1e-4)


def test_stages_can_be_switched_off():
    network = BoostedNetworkClassifier(**QUICK).fit(X, LABELS)
    shorter = BoostedNetworkClassifier(**{**QUICK, "n_stages": 3}).fit(X, LABELS)
    np.testing.assert_allclose(network.predict_proba(X, stages=3), shorter.predict_proba(X))
    staged = list(network.staged_predict(X))
    assert len(staged) == 5
    np.testing.assert_array_equal(staged[2], shorter.predict(X))
    np.testing.assert_array_equal(staged[-1], network.predict(X))
    prior = np.bincount(LABELS[:120]) / 120
    np.testing.assert_allclose(
        BoostedNetworkClassifier(**QUICK).fit(X[:120], LABELS[:120]).predict_proba(X[:2], stages=0), [prior, prior]
    )
    for wrong in (-1, 6):
        with pytest.raises(ConfigError, match=f"stages is {wrong}; expected 0 to 5"):
            network.predict(X, stages=wrong)


def test_it_stops_when_nothing_is_left():
    x = np.repeat([[0.0], [1.0]], 5, axis=0)
    network = BoostedNetworkRegressor(n_stages=50, learning_rate=1.0, alpha=0.0, random_state=0).fit(x, x[:, 0] * 4)
    np.testing.assert_allclose(network.predict(x), x[:, 0] * 4, atol=1e-6)
    flat = BoostedNetworkRegressor(random_state=0).fit(x, np.full(10, 3.0))
    assert flat.n_stages_ == 0
    np.testing.assert_allclose(flat.predict(x), 3.0)
    assert flat.to_module()(torch.zeros(2, 1)).tolist() == [[3.0], [3.0]]


def test_separable_classes_and_duplicates_stay_finite():
    x = np.repeat([[0.0, 1.0], [1.0, 1.0]], 20, axis=0)
    network = BoostedNetworkClassifier(n_stages=20, learning_rate=1.0, random_state=0).fit(x, np.repeat([0, 1], 20))
    scores = network.decision_function(x)
    assert np.isfinite(scores).all()
    assert network.score(x, np.repeat([0, 1], 20)) == 1
    assert np.isfinite(log_softmax(network.decision_function(X[:, :2]))).all()


def test_a_seed_decides_everything():
    for options in ({}, {"subsample": 0.5}, {"solver": "adam", "max_iter": 3}):
        first, second = (BoostedNetworkClassifier(**{**QUICK, **options}).fit(X, LABELS) for _ in range(2))
        np.testing.assert_array_equal(first.decision_function(X), second.decision_function(X))
        other = BoostedNetworkClassifier(**{**QUICK, **options, "random_state": 1}).fit(X, LABELS)
        assert not np.array_equal(first.decision_function(X), other.decision_function(X))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n_stages": 0}, "n_stages is 0; expected 1 or more"),
        ({"n_neurons": 0}, "n_neurons"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"subsample": 1.5}, "subsample"),
        ({"alpha": -1.0}, "alpha"),
        ({"max_iter": 0}, "max_iter"),
        ({"activation": "gelu"}, "expected one of logistic, tanh, relu"),
        ({"solver": "sgd"}, "expected one of lbfgs, adam"),
    ],
)
def test_what_cannot_be_is_refused(options, text):
    for estimator in (BoostedNetworkClassifier, BoostedNetworkRegressor):
        with pytest.raises(ConfigError, match=text):
            estimator(**options).fit(X, LABELS)
