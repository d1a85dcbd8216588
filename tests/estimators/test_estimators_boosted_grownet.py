"""GrowNet: what a learner is fitted to, what it sees, what is corrected, and that each part can be switched off."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris

from repertoire.errors import ConfigError
from repertoire.estimators import GrowNetClassifier, GrowNetRegressor
from repertoire.estimators.boosted._objectives import Logistic, Softmax

X, LABELS = load_iris(return_X_y=True)
QUICK = {"n_stages": 3, "hidden": 8, "epochs": 3, "corrective_epochs": 1, "random_state": 0}


@pytest.mark.parametrize("two", [False, True])
def test_the_gradient_of_a_learner_is_that_of_the_weighted_second_order_targets(two):
    """Of sum_i h_i (-g_i / h_i - alpha f_i)^2 / 2, as the paper writes it."""
    generator = torch.Generator().manual_seed(0)
    outputs = 1 if two else 3
    objective = Logistic() if two else Softmax()
    scores, f = (torch.randn(6, outputs, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.arange(6) % (2 if two else 3)
    targets = labels[:, None].double() if two else torch.eye(3, dtype=torch.float64)[labels]
    f.requires_grad_(True)
    residuals, h = objective.residuals(targets, scores), objective.curvature(targets, scores)
    paper = (h * (residuals / h - 0.7 * f).square() / 2).sum(1).mean()
    ours = (h * (0.7 * f).square() / 2 - residuals * 0.7 * f).sum(1).mean()
    torch.testing.assert_close(torch.autograd.grad(ours, f)[0], torch.autograd.grad(paper, f)[0])


def test_the_targets_of_two_classes_are_those_of_the_paper():
    """With labels y of -1 and 1 and scores F = z / 2: y (1 + exp(-2 y F)) / 2, which is half of -g / h in logits z."""
    z = torch.linspace(-4, 4, 9, dtype=torch.float64)[:, None]
    for label in (0.0, 1.0):
        y = 2 * label - 1
        target = torch.full_like(z, label)
        ours = Logistic().residuals(target, z) / Logistic().curvature(target, z)
        torch.testing.assert_close(ours / 2, y * (1 + torch.exp(-2 * y * z / 2)) / 2)


def test_scores_are_the_constant_and_all_learners_times_their_rates():
    network = GrowNetClassifier(**QUICK).fit(X, LABELS)
    module = network.module_
    x = (torch.from_numpy(X) - torch.from_numpy(X.mean(0))) / torch.from_numpy(X.std(0))
    scores, features = torch.full((150, 3), 1 / 3, dtype=torch.float64).log(), None
    with torch.no_grad():
        for learner, rate in zip(module.learners, network.boost_rates_, strict=True):
            entering = x if features is None else torch.cat([x, features], 1)
            features = learner.body(entering)
            assert learner.body[0].in_features == entering.shape[1]
            scores = scores + rate * learner.out(features)
    np.testing.assert_allclose(network.decision_function(X), scores.numpy(), rtol=1e-9, atol=1e-9)


def test_without_propagation_a_learner_sees_the_features_alone():
    network = GrowNetClassifier(**{**QUICK, "propagate": False}).fit(X, LABELS)
    assert [learner.body[0].in_features for learner in network.module_.learners] == [4, 4, 4]


def test_only_the_corrective_step_changes_earlier_learners():
    def first(stages: int, **options: object) -> dict[str, torch.Tensor]:
        network = GrowNetClassifier(**{**QUICK, "n_stages": stages, **options}).fit(X, LABELS)
        return network.module_.learners[0].state_dict()

    for options, same in (({"corrective": False}, True), ({}, False)):
        one, three = first(1, **options), first(3, **options)
        assert all(torch.equal(one[name], three[name]) for name in one) == same


@pytest.mark.parametrize(
    ("options", "distinct"),
    [
        ({}, 3),
        ({"learn_boost_rate": "shared"}, 1),
        ({"learn_boost_rate": "fixed"}, 1),
        ({"corrective": False}, 1),
    ],
)
def test_boost_rates(options, distinct):
    network = GrowNetClassifier(**{**QUICK, **options}, boost_rate=0.7).fit(X, LABELS)
    rates = network.boost_rates_
    assert len(rates) == 3
    assert len({round(rate, 12) for rate in rates}) == distinct
    learnt = options in ({}, {"learn_boost_rate": "shared"})
    assert (rates != pytest.approx([0.7] * 3)) == learnt


def test_the_corrective_step_lowers_the_loss():
    def loss(**options: object) -> float:
        network = GrowNetClassifier(**{**QUICK, **options}).fit(X, LABELS)
        return -np.log(network.predict_proba(X)[np.arange(150), LABELS]).mean()

    assert loss(corrective_epochs=10) < loss(corrective=False)


def test_order_matters_to_classes_and_not_to_numbers():
    y = X[:, 0]
    plain, first = (GrowNetRegressor(**QUICK, second_order=order).fit(X[:, 1:], y) for order in (True, False))
    np.testing.assert_array_equal(plain.predict(X[:, 1:]), first.predict(X[:, 1:]))
    second, first = (GrowNetClassifier(**QUICK, second_order=order).fit(X, LABELS) for order in (True, False))
    assert not np.array_equal(second.decision_function(X), first.decision_function(X))


@pytest.mark.parametrize("two", [False, True])
def test_the_module_gives_what_the_estimator_gives(two):
    x, y = (X[50:], LABELS[50:]) if two else (X, LABELS)
    x = x * [1, 100, 1, 0.01] + 7
    network = GrowNetClassifier(**QUICK).fit(x, y)
    before = copy.deepcopy(network.module_.state_dict())
    for stages in (None, 2, 0):
        found = network.to_module(stages)(torch.from_numpy(x).float()).numpy()
        expected = network.decision_function(x, stages=stages)
        np.testing.assert_allclose(found[:, 0] if two else found, expected, rtol=2e-3, atol=2e-3)
    assert all(torch.equal(value, before[name]) for name, value in network.module_.state_dict().items())
    staged = list(network.staged_predict(x))
    assert len(staged) == 3
    np.testing.assert_array_equal(staged[1], network.predict(x, stages=2))


def test_the_module_of_the_regressor_answers_in_the_units_of_the_target():
    y = 1000 + 50 * X[:, 0]
    network = GrowNetRegressor(**QUICK).fit(X[:, 1:], y)
    found = network.to_module()(torch.from_numpy(X[:, 1:]).float())[:, 0].numpy()
    np.testing.assert_allclose(found, network.predict(X[:, 1:]), rtol=1e-4)
    assert network.predict(X[:1, 1:], stages=0) == pytest.approx(y.mean())


def test_a_seed_decides_everything_and_the_global_state_stays():
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    first, second = (GrowNetClassifier(**QUICK).fit(X, LABELS) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(first.decision_function(X), second.decision_function(X))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n_stages": 0}, "n_stages is 0; expected 1 or more"),
        ({"hidden": 0}, "hidden"),
        ({"epochs": 0}, "epochs"),
        ({"corrective_epochs": -1}, "corrective_epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"boost_rate": 0.0}, "boost_rate"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"learn_boost_rate": "all"}, "expected one of each, shared, fixed"),
    ],
)
def test_what_cannot_be_is_refused(options, text):
    for estimator in (GrowNetClassifier, GrowNetRegressor):
        with pytest.raises(ConfigError, match=text):
            estimator(**options).fit(X, LABELS)
