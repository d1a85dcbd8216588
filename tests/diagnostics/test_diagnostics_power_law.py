"""Fits of power laws: exact data, intervals that cover, and refusals."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from repertoire.diagnostics import fit_critical_batch, fit_joint_power_law, fit_power_law
from repertoire.errors import ConfigError, DataError, ShapeError, UnknownName


@settings(max_examples=12, deadline=None)
@given(st.floats(0.1, 50.0), st.floats(0.1, 1.5), st.sampled_from([0.0, 0.01, 0.3]), st.floats(1.0, 1e6))
def test_exact_data_give_the_law_back(scale, exponent, floor, unit):
    x = unit * np.geomspace(1, 1000, 9)
    a = scale * unit**exponent
    law = fit_power_law(x, a * x**-exponent + floor)
    assert law.exponent == pytest.approx(exponent, rel=1e-4)
    assert law.floor == pytest.approx(floor, rel=1e-3, abs=1e-6 * scale)
    assert law(x * 100) == pytest.approx(a * (x * 100) ** -exponent + floor, rel=1e-3)


def test_least_squares_of_the_logarithm():
    """Beside a general optimiser of the three parameters, on five points, where all weights are one."""
    x, y = np.array([1.0, 3, 10, 30, 100]), np.array([2.0, 1.4, 0.8, 0.7, 0.52])

    def squares(p: np.ndarray) -> float:
        return float(np.square(np.log(y) - np.log(np.exp(p[0]) * x ** -np.exp(p[1]) + np.exp(p[2]))).sum())

    starts = [np.array([0.5, b, c]) for b in (-1.0, 0.0) for c in (-3.0, -1.0)]
    options = {"xatol": 1e-10, "fatol": 1e-16, "maxiter": 20_000, "maxfev": 20_000}
    best = min(
        (minimize(squares, start, method="Nelder-Mead", options=options) for start in starts), key=lambda r: r.fun
    )
    law = fit_power_law(x, y)
    assert law.sigma == pytest.approx(math.sqrt(best.fun / 2), rel=1e-6)
    assert law.exponent == pytest.approx(math.exp(best.x[1]), rel=1e-3)
    assert law.floor == pytest.approx(math.exp(best.x[2]), rel=1e-3)


def test_profile_intervals_end_where_the_best_law_is_at_the_limit():
    """The ends of the interval of the floor: refitted with the floor held there, the sum of squares is at its limit."""
    x, y = np.array([1.0, 3, 10, 30, 100, 300]), np.array([2.0, 1.4, 0.85, 0.69, 0.53, 0.5])
    law = fit_power_law(x, y)

    def squares(floor: float) -> float:
        def off(p: np.ndarray) -> float:
            return float(
                np.square(np.log(y) - np.log(np.exp(p[0]) * x ** -np.exp(p[1]) + floor)) @ law._profile.weights
            )

        return float(min(minimize(off, [0.5, b], method="Nelder-Mead", tol=1e-12).fun for b in (-1.0, 0.0)))

    t = law._profile.quantile(0.95)
    for end in law.floor_interval:
        assert squares(end) == pytest.approx(squares(law.floor) * (1 + t**2 / 3), rel=0.02)


def test_intervals_cover():
    x, inside = np.geomspace(10, 1e4, 10), np.zeros(3)
    true = 2 * 1e5**-0.4 + 0.05
    for seed in range(10):
        random = np.random.default_rng(seed)
        law = fit_power_law(x, (2 * x**-0.4 + 0.05) * np.exp(0.03 * random.standard_normal(10)))
        curve, point = law.predict([1e5]), law.predict([1e5], observation=True)
        new = true * math.exp(0.03 * random.standard_normal())
        inside += [
            curve.low[0] <= true <= curve.high[0],
            point.low[0] <= new <= point.high[0],
            law.exponent_interval[0] <= 0.4 <= law.exponent_interval[1],
        ]
        assert point.low[0] < curve.low[0] < curve.value[0] < curve.high[0] < point.high[0]
    assert (inside >= 7).all()  # of 10, 9.5 expected


def test_intervals_widen_beyond_the_data_and_with_confidence():
    x = np.geomspace(10, 1e3, 8)
    law = fit_power_law(x, (x**-0.5 + 0.02) * np.exp(0.02 * np.cos(7 * x)))
    found = law.predict([[100.0, 1e4], [1e6, 1e8]])
    assert found.value.shape == (2, 2)
    width = np.log(found.high / found.low).ravel()
    assert (np.diff(width) > 0).all()
    assert law.predict([1e4], 0.5).high < law.predict([1e4], 0.99).high


def test_an_outlier_counts_less():
    x = np.geomspace(10, 1e4, 12)
    y = 2 * x**-0.4 * np.exp(0.01 * np.cos(9 * np.arange(12)))
    y[5] *= 3
    assert fit_power_law(x, y, floor=False).exponent == pytest.approx(0.4, abs=0.02)


def test_without_a_floor_and_the_size_that_is_needed():
    law = fit_power_law(torch.tensor([1.0, 10, 100]), torch.tensor([1.0, 0.1, 0.01]), floor=False)
    assert law.floor == 0
    assert law.needed(1e-3) == pytest.approx(1000)
    x = np.array([1.0, 10, 100, 1000])
    assert fit_power_law(x, 1 / x + 0.2).needed(0.1) == math.inf
    copied = pickle.loads(pickle.dumps(copy.deepcopy(law)))
    assert copied.predict([5.0]).value == pytest.approx(law.predict([5.0]).value)


def test_it_refuses_what_would_be_no_law():
    x = [1.0, 2, 4, 8, 16]
    y = [1.0, 0.8, 0.7, 0.6, 0.55]
    with pytest.raises(DataError, match="at least 4 different x, found 3; measure more sizes, or give floor=False"):
        fit_power_law(x[:3], y[:3])
    with pytest.raises(DataError, match="at least 3 different x, found 2"):
        fit_power_law([1, 1, 2, 2], [1, 1, 0.5, 0.5], floor=False)
    with pytest.raises(DataError, match="does not fall"):
        fit_power_law(x, y[::-1])
    with pytest.raises(DataError, match="does not fall"):
        fit_power_law(x, [1.0] * 5)
    for bad in (math.nan, math.inf, 0.0, -0.1):
        with pytest.raises(DataError, match=r"y must be positive and finite, found .* at place \[1\]"):
            fit_power_law(x, [1.0, bad, 0.7, 0.6, 0.5])
    with pytest.raises(DataError, match="x must be positive"):
        fit_power_law([0.0, *x[1:]], y)
    with pytest.raises(ShapeError, match="5 x and 4 y"):
        fit_power_law(x, y[:4])
    law = fit_power_law(x, y)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        law.predict([1.0], 95)
    with pytest.raises(DataError, match="y must be positive"):
        law.needed(0.0)


def grid() -> tuple[np.ndarray, np.ndarray]:
    n, d = np.meshgrid([1e3, 1e4, 1e5], [1e4, 1e5, 1e6, 1e7])
    return n.ravel(), d.ravel()


@pytest.mark.parametrize("form", ["kaplan", "sum"])
def test_joint_laws_are_found_and_predict(form):
    n, d = grid()

    def true(n: np.ndarray, d: np.ndarray) -> np.ndarray:
        if form == "kaplan":
            return ((2e3 / n) ** (0.3 / 0.4) + 5e3 / d) ** 0.4
        return 1.5 + 30 * n**-0.5 + 50 * d**-0.4

    law = fit_joint_power_law(n, d, true(n, d), form=form)
    names = {"kaplan": {"alpha_n": 0.3, "alpha_d": 0.4, "n_c": 2e3, "d_c": 5e3},
             "sum": {"alpha": 0.5, "beta": 0.4, "a": 30, "b": 50, "e": 1.5}}  # fmt: skip
    assert law.parameters == pytest.approx(names[form], rel=1e-3)
    noisy = fit_joint_power_law(n, d, true(n, d) * np.exp(0.01 * np.cos(5 * np.arange(12))), form=form)
    found = noisy.predict([1e6], [1e8])
    assert found.low < true(np.array([1e6]), np.array([1e8])) < found.high
    best = law.allocate(6e10)
    assert best.parameters * best.data * 6 == pytest.approx(6e10)
    sizes = np.geomspace(1e2, 1e8, 4001)
    losses = true(sizes, 1e10 / sizes)
    assert best.loss == pytest.approx(losses.min(), rel=1e-4)
    assert best.parameters == pytest.approx(sizes[losses.argmin()], rel=0.05)


def test_the_best_allocation_is_that_of_the_closed_form():
    n, d = grid()
    best = fit_joint_power_law(n, d, 1.5 + 30 * n**-0.5 + 50 * d**-0.4, form="sum").allocate(6e12)
    ratio = (0.5 * 30 / (0.4 * 50)) ** (1 / 0.9)
    assert best.parameters == pytest.approx(ratio * 1e12 ** (0.4 / 0.9), rel=1e-2)


def test_joint_laws_refuse():
    n, d = grid()
    loss = 1 + 1 / n + 1 / d
    with pytest.raises(UnknownName):
        fit_joint_power_law(n, d, loss, form="hoffmann")
    with pytest.raises(ShapeError):
        fit_joint_power_law(n, d, loss[:-1])
    with pytest.raises(DataError, match="4 parameters and needs at least 5"):
        fit_joint_power_law(n[:4], d[:4], loss[:4])
    with pytest.raises(DataError, match="three different"):
        fit_joint_power_law(np.ones(12), d, loss)
    with pytest.raises(DataError, match="loss must be positive"):
        fit_joint_power_law(n, d, -loss)
    law = fit_joint_power_law(n, d, loss)
    with pytest.raises(ConfigError):
        law.predict(n, d, 1.0)
    with pytest.raises(ConfigError):
        law.allocate(0.0)


def test_the_critical_batch_and_its_interval():
    batch = np.array([16, 32, 64, 128, 256, 512, 1024.0])
    inside = 0
    for seed in range(100):
        noise = np.exp(0.05 * np.random.default_rng(seed).standard_normal(7))
        found = fit_critical_batch(batch, 1000 * (1 + 100 / batch) * noise)
        inside += found.interval[0] <= 100 <= found.interval[1]
    assert inside >= 88
    exact = fit_critical_batch(batch, 1000 * (1 + 100 / batch))
    assert exact == (pytest.approx(100), pytest.approx((100, 100), rel=1e-4), pytest.approx(1000), pytest.approx(1e5))
    assert exact.steps_at(50) == pytest.approx(3000)


def test_batches_that_never_or_always_pay():
    batch = np.array([8.0, 16, 32, 64])
    always = fit_critical_batch(batch, 1e4 / batch**1.1)
    assert always.batch == math.inf
    assert fit_critical_batch(batch, 100 * batch**0.1).batch == 0
    assert fit_critical_batch(batch, 1e4 / batch * np.array([1, 1.02, 0.97, 1.05])).interval[1] == math.inf
    for bad, error in ((batch[:2], DataError), (batch[:3], ShapeError), (-batch, DataError)):
        with pytest.raises(error):
            fit_critical_batch(bad, np.ones(min(len(bad), 2) if len(bad) < 3 else 4))
