"""Inductive bias: the fitted tail beside known distributions, exact counts, and a space of functions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2, ncx2

from repertoire.diagnostics import counted_inductive_bias, gaussian_process_errors, inductive_bias
from repertoire.diagnostics.scaling._inductive_bias import _log_cdf, _log_density
from repertoire.errors import ConfigError, DataError, ShapeError


@pytest.mark.parametrize(
    ("df", "nc"), [(1.0, 0.5), (20.0, 1e-6), (20.0, 10.0), (62.0, 0.01), (70.0, 3.0), (400.0, 90.0)]
)
def test_the_density_is_that_of_scipy(df, nc):
    x = np.array([0.5, 5.0, 50.0, 300.0])
    np.testing.assert_allclose(_log_density(x, df, nc), ncx2.logpdf(x, df, nc), atol=1e-4)


@pytest.mark.parametrize(("df", "nc"), [(3.0, 4.0), (20.0, 1e-6), (20.0, 10.0), (60.0, 30.0)])
def test_the_tail_is_that_of_scipy_where_scipy_has_one_and_goes_on_beyond(df, nc):
    x = np.geomspace(1e-3, df + nc, 40)
    exact = ncx2.logcdf(x, df, nc) if nc > 1e-3 else chi2.logcdf(x, df)
    some = np.isfinite(exact)
    found = np.array([_log_cdf(v, df, nc, 1.0) for v in x])
    np.testing.assert_allclose(found[some], exact[some], rtol=3e-3)
    assert (np.diff(found) > 0).all()
    deep = [_log_cdf(v, 400.0, 50.0, 1.0) for v in (1e-6, 1e-3, 1.0)]
    assert np.isfinite(deep).all()
    assert deep[1] - deep[0] == pytest.approx(200 * math.log(1000), rel=0.01)  # x ** (df / 2) near zero


def test_few_errors_tell_how_rare_good_hypotheses_are():
    random = np.random.default_rng(0)
    exact = -chi2.logcdf(0.25 * 20, 20) / math.log(2)
    found = inductive_bias(torch.from_numpy(random.chisquare(20, 400) / 20), 0.25)
    assert found.interval[0] < exact < found.interval[1]
    assert found.bits == pytest.approx(exact, rel=0.2)
    assert (
        inductive_bias(random.chisquare(20, 400), 0.25 * 20, resamples=0).interval
        == (pytest.approx(math.nan, nan_ok=True),) * 2
    )


def test_the_unit_of_the_error_does_not_matter():
    errors = np.random.default_rng(1).noncentral_chisquare(8, 5, 300)
    first = inductive_bias(errors, 2.0, resamples=0).bits
    assert inductive_bias(errors * 1e-4, 2e-4, resamples=0).bits == pytest.approx(first, rel=1e-3)


def test_counting_on_a_finite_space_is_what_the_estimate_comes_near_to():
    """All linear functions with weights -2..2 in six dimensions that fit two points; the rest of the space is known."""
    weights = np.array(list(itertools.product(range(-2, 3), repeat=6)), dtype=float)
    random = np.random.default_rng(0)
    truth = np.array([1.0, -1, 2, 0, 1, -2])
    train, test = random.standard_normal((1, 6)).round(), random.standard_normal((200, 6))
    fits = weights[(np.abs((weights - truth) @ train.T) < 1e-9).all(1)]
    errors = np.square((fits - truth) @ test.T).mean(1) + 1e-9
    target = np.quantile(errors, 0.01)
    exact = counted_inductive_bias(errors, target)
    drawn = random.choice(errors, 300, replace=False)
    assert inductive_bias(drawn, target, resamples=0).bits == pytest.approx(exact, abs=1.0)
    assert counted_inductive_bias(errors, 0.0) == math.inf


def test_random_functions_through_the_data_have_the_moments_of_the_conditional_process():
    torch.manual_seed(0)
    x, x_test = torch.rand(6, 2, dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64)
    y, y_test = x.sum(1), x_test.sum(1)

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.exp(-((a[:, None] - b[None]) ** 2).sum(2) / (2 * 0.5**2))

    solve = kernel(x_test, x) @ torch.linalg.inv(kernel(x, x))
    covariance = kernel(x_test, x_test) - solve @ kernel(x, x_test)
    expected = ((solve @ y - y_test) ** 2 + covariance.diagonal()).mean()
    errors = gaussian_process_errors((x, y), (x_test, y_test), width=0.5, samples=4000)
    assert abs(float(errors.mean() - expected)) < 4 * float(errors.std()) / 4000**0.5
    assert errors.shape == (4000,)
    assert torch.equal(errors[:300], gaussian_process_errors((x, y), (x_test, y_test), width=0.5, samples=4000)[:300])


def test_a_task_of_more_dimensions_asks_for_more():
    bits = []
    for d in (1, 3):
        generator = torch.Generator().manual_seed(0)
        x, x_test = torch.rand(12, d, generator=generator), torch.rand(60, d, generator=generator)
        errors = gaussian_process_errors((x, x.mean(1)), (x_test, x_test.mean(1)), width=0.3, samples=300)
        bits.append(inductive_bias(errors, 1e-3, resamples=0).bits)
    assert bits[0] < bits[1]


def test_bad_input():
    errors = np.linspace(1, 2, 20)
    for bad in (math.nan, -0.1, 0.0):
        with pytest.raises(DataError, match="positive and finite"):
            inductive_bias([*errors, bad], 0.5)
    with pytest.raises(DataError, match="at least ten"):
        inductive_bias(errors[:9], 0.5)
    with pytest.raises(DataError, match="the same error"):
        inductive_bias(np.ones(20), 0.5)
    with pytest.raises(ConfigError, match="target"):
        inductive_bias(errors, 0.0)
    for empty in ([], [-1.0]):
        with pytest.raises(DataError, match="at least 0"):
            counted_inductive_bias(empty, 0.5)
    x = torch.rand(4, 2)
    with pytest.raises(ShapeError, match="train must be"):
        gaussian_process_errors((x, x[:3]), (x, x))
    with pytest.raises(ShapeError, match="train is"):
        gaussian_process_errors((x, x), (x[:, :1], x))
    with pytest.raises(DataError, match="not finite"):
        gaussian_process_errors((x, x * math.nan), (x, x))
    with pytest.raises(DataError, match="coincide"):
        gaussian_process_errors((torch.ones(2, 1), torch.tensor([0.0, 1.0])), (x[:, :1], x[:, 0]))
    with pytest.raises(ConfigError):
        gaussian_process_errors((x, x), (x, x), width=0.0)
