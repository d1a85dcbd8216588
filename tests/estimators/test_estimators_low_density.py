from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import check_grad, minimize
from sklearn.datasets import make_moons
from sklearn.semi_supervised import LabelSpreading as Peer
from sklearn.svm import LinearSVC

from repertoire.errors import ConfigError
from repertoire.estimators import (
    HybridSelfTraining,
    LabelSpreading,
    LowDensitySeparation,
    labelled_rows,
    load_estimator,
    nobody_knows,
    save_estimator,
)


def clouds(seed: int, count: int = 120, gap: float = 2.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two clouds in five dimensions, and two labels of each."""
    generator = np.random.default_rng(seed)
    true = np.arange(count) % 2
    x = generator.normal(size=(count, 5))
    x[:, 0] += gap * (2 * true - 1)
    seen = np.where(np.arange(count) < 4, true, -1)
    return x, true, seen


def objective(w: np.ndarray, b: float, x: np.ndarray, y: np.ndarray, C: float, hidden: float) -> float:
    """The formula of the docstring, row by row; y is -1, 0 where nobody knows, or 1."""
    total = 0.5 * sum(v * v for v in w)
    for row, label in zip(x, y, strict=True):
        f = sum(v * r for v, r in zip(w, row, strict=True)) + b
        total += hidden * np.exp(-3 * f * f) if label == 0 else C * max(0.0, 1 - label * f) ** 2
    return total


@pytest.mark.parametrize("balance", [True, False])
def test_ends_in_a_minimum_of_the_formula(balance: bool):
    x, _, seen = clouds(0)
    model = LowDensitySeparation(unlabelled=0.3, balance=balance, max_iter=5000).fit(x, seen)
    C = 1 / x.var(0).sum()
    y = np.select([seen == 0, seen == 1], [-1, 1], 0)
    w, b, centre = model.coef_[0], float(model.intercept_[0]), x[seen < 0].mean(0)
    shift = 0.0 if balance else 1.0

    def value(v: np.ndarray) -> float:
        return objective(v[:5], b + shift * v[5], x - centre, y, C, 0.3 * C)

    here = np.append(w, 0.0)
    nearby = minimize(value, here, method="BFGS").fun
    assert value(here) - nearby < 1e-6 * C
    if balance:
        # The mean over the unlabelled rows is the mean label: two of each.
        assert_allclose(model.decision_function(x[seen < 0]).mean(), 0.0, atol=1e-10)
    assert check_grad(value, lambda v: np.zeros(6), here) < 1e-3, "the gradient is nothing here"


@pytest.mark.parametrize("seed", range(3))
def test_with_labels_alone_it_is_a_linear_support_vector_machine(seed: int):
    x, true, _ = clouds(seed, gap=0.5)
    C = 0.7
    ours = LowDensitySeparation(C=C * x.var(0).sum()).fit(x, true)
    # The peer shrinks its intercept too, which a large scale all but undoes.
    peer = LinearSVC(C=C, intercept_scaling=1e3, tol=1e-10, max_iter=1_000_000).fit(x, true)
    assert_allclose(ours.decision_function(x), peer.decision_function(x), atol=2e-3)


def test_unlabelled_rows_that_weigh_nothing_change_nothing():
    x, _, seen = clouds(1)
    ours = LowDensitySeparation(C=0.7 * x.var(0).sum(), unlabelled=0, balance=False).fit(x, seen)
    known = seen >= 0
    alone = LowDensitySeparation(C=0.7 * x[known].var(0).sum()).fit(x[known], seen[known])
    assert_allclose(ours.decision_function(x), alone.decision_function(x), atol=1e-4)


def test_the_boundary_moves_into_the_gap():
    """A label at the edge of each crowd says the middle between them; the gap is elsewhere."""
    left, right = np.linspace(-1, 1, 50), np.linspace(3, 5, 50)
    x = np.concatenate([left, right])[:, None]
    seen = np.full(100, -1)
    seen[[0, 50]] = 0, 1  # at -1 and 3: halfway is 1, where the left crowd ends
    wide = {"C": 30.0, "balance": False}
    cut = {
        share: -m.intercept_[0] / m.coef_[0, 0] + m._centre[0]
        for share in (0.0, 1.0)
        for m in [LowDensitySeparation(unlabelled=share, **wide).fit(x, seen)]
    }
    assert_allclose(cut[0.0], 1.0, atol=1e-2)
    assert 1.2 < cut[1.0] < 2.8


def test_without_the_constraint_all_rows_fall_on_one_side():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(300, 2))  # one crowd, without a gap
    seen = np.full(300, -1)
    seen[:2] = 0, 1
    share = {
        balance: float((LowDensitySeparation(C=0.1, balance=balance).fit(x, seen).predict(x) == 1).mean())
        for balance in (True, False)
    }
    assert min(share[False], 1 - share[False]) < 0.02
    assert 0.25 < share[True] < 0.75


@pytest.mark.parametrize("rho", [2.0, 4.0])
def test_two_moons_along_the_graph(rho: float):
    x, true = make_moons(200, noise=0.07, random_state=0)
    seen = np.full(200, -1)
    for c in (0, 1):
        seen[np.flatnonzero(true == c)[:2]] = c
    straight = LowDensitySeparation().fit(x, seen)
    bent = LowDensitySeparation(rho=rho).fit(x, seen)
    assert (straight.transduction_ == true).mean() < 0.95
    assert (bent.transduction_ == true).mean() == 1.0
    np.testing.assert_array_equal(bent.predict(x), bent.transduction_)
    more, more_true = make_moons(400, noise=0.07, random_state=1)
    assert (bent.predict(more) == more_true).mean() > 0.97


def test_coordinates_have_the_distances_of_the_graph():
    """All coordinates kept: squared distances are those of the formula, found by trying all paths."""
    x = np.array([[0.0], [1.0], [2.0], [4.0]])
    seen = np.array([0, -1, -1, 1])
    model = LowDensitySeparation(rho=1.5, neighbours=3, delta=0.0)
    model._check_options()
    placed = model._place(x)
    unit = np.mean([[1, 2, 4], [1, 1, 3], [1, 2, 2], [2, 3, 4]])
    step = np.expm1(1.5 * np.abs(x - x.T) / unit)
    for k in range(4):  # shortest paths after Floyd and Warshall
        step = np.minimum(step, step[:, k : k + 1] + step[k])
    expected = (np.log1p(step) / 1.5) ** 2
    found = np.square(placed[:, None] - placed[None]).sum(2)
    assert np.linalg.eigvalsh(-0.5 * (np.eye(4) - 0.25) @ expected @ (np.eye(4) - 0.25)).min() > -1e-9
    assert_allclose(found, expected, atol=1e-9)
    assert_allclose(model._join(x), placed, atol=1e-9)
    assert model.fit(x, seen).coef_.shape == (1, 3)


def test_labels_are_told_apart_from_none():
    assert nobody_knows(np.array(["a", "", "b"], object)).tolist() == [False, True, False]
    assert nobody_knows([-1.0, 2.0]).tolist() == [True, False]
    classes, index = labelled_rows(np.array([3, -1, 1, 3]))
    assert (classes.tolist(), index.tolist()) == ([1, 3], [1, -1, 0, 1])
    with pytest.raises(ValueError, match="count as unlabelled"):
        labelled_rows(np.array([3, -1, 3]))


@pytest.mark.parametrize(
    "bad", [{"C": 0}, {"unlabelled": -1}, {"start": 0}, {"steps": 0}, {"rho": -1}, {"neighbours": 0}, {"delta": 1}]
)
def test_options_out_of_range(bad: dict[str, float]):
    x, _, seen = clouds(0)
    with pytest.raises(ConfigError, match=next(iter(bad))):
        LowDensitySeparation(**bad).fit(x, seen)


def test_spreading_solves_the_formula():
    x, true, seen = clouds(3, count=40)
    model = LabelSpreading(alpha=0.8, neighbours=4).fit(x, seen)
    distances = np.linalg.norm(x[:, None] - x[None], axis=2) + np.diag(np.full(40, np.inf))
    graph = np.zeros((40, 40))
    for i in range(40):
        graph[i, np.argsort(distances[i])[:4]] = 1
    graph = np.maximum(graph, graph.T)
    scale = np.diag(graph.sum(1) ** -0.5)
    given = np.stack([seen == 0, seen == 1], axis=1).astype(float)
    expected = np.linalg.solve(np.eye(40) - 0.8 * scale @ graph @ scale, given)
    assert_allclose(model.scores_, expected / expected.sum(1, keepdims=True), atol=1e-6)
    peer = Peer(kernel=lambda rows, others: graph, alpha=0.8, max_iter=1000, tol=1e-12).fit(x, seen)
    assert_allclose(model.scores_, peer.label_distributions_, atol=1e-6)
    assert (model.transduction_ == true).mean() > 0.8


def test_rows_that_no_label_reaches_are_undecided():
    x = np.array([[0.0], [0.1], [5.0], [5.1], [99.0], [99.1]])
    model = LabelSpreading(neighbours=1).fit(x, np.array([0, -1, 1, -1, -1, -1]))
    assert_allclose(model.scores_, [[1, 0], [1, 0], [0, 1], [0, 1], [0.5, 0.5], [0.5, 0.5]], atol=1e-7)


def test_self_training_keeps_the_surest_of_each_class():
    model = HybridSelfTraining(keep=0.5)
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8], [0.45, 0.55], [0.99, 0.01]])
    free = np.array([True] * 5 + [False])
    assert model._surest(probabilities, free).tolist() == [True, False, True, True, False, False]


def test_self_training_without_rounds_is_the_estimator_on_an_embedding():
    x, _, seen = clouds(2)
    model = HybridSelfTraining("label-spreading", rounds=0, steps=50, width=8, random_state=0).fit(x, seen)
    embedding = model._embed(model._scaled(x))
    assert embedding.shape == (120, 8)
    alone = LabelSpreading().fit(embedding, seen)
    np.testing.assert_array_equal(model.transduction_, alone.transduction_)


def test_self_training_is_saved_with_what_it_holds(tmp_path):
    x, _, seen = clouds(4)
    names = np.array(["left", "right", ""])[seen]
    model = HybridSelfTraining(rounds=1, steps=30, width=8, random_state=0).fit(x, names)
    save_estimator(model, tmp_path)
    assert_allclose(load_estimator(tmp_path).predict_proba(x), model.predict_proba(x))


def test_self_training_asks_for_an_estimator_that_learns_from_unlabelled_rows():
    x, _, seen = clouds(0)
    with pytest.raises(ConfigError, match="low-density"):
        HybridSelfTraining("nearest-centroid").fit(x, seen)
