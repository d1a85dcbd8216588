from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError
from repertoire.ops import covariance, newton_whiten, whiten


def mixed(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64) @ mixing + 3.0


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["cholesky", "zca"]),
    width=st.integers(1, 5),
    extra=st.integers(2, 20),
    seed=st.integers(0, 1000),
)
def test_the_covariance_becomes_the_identity(kind, width, extra, seed):
    z = whiten(mixed(width + extra, width, seed), kind, eps=0.0)
    torch.testing.assert_close(z.mean(0), torch.zeros(width, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(covariance(z)[1], torch.eye(width, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_is_the_factor_and_the_root_of_the_shrunk_inverse(eps):
    x = mixed(12, 4)
    centred, sigma = covariance(x)
    shrunk = (1 - eps) * sigma + eps * sigma.trace() / 4 * torch.eye(4, dtype=torch.float64)
    factor = torch.linalg.inv(torch.linalg.cholesky(shrunk))
    torch.testing.assert_close(whiten(x, "cholesky", eps), centred @ factor.T)
    values, vectors = torch.linalg.eigh(shrunk)
    root = vectors @ torch.diag(values**-0.5) @ vectors.T
    torch.testing.assert_close(whiten(x, "zca", eps), centred @ root)


@pytest.mark.parametrize("kind", ["cholesky", "zca"])
def test_scale_and_shift_do_not_matter(kind):
    x = mixed(9, 4)
    torch.testing.assert_close(whiten(1e4 * x - 7, kind, 1e-3), whiten(x, kind, 1e-3))


def test_zca_turns_with_the_rows():
    x = mixed(9, 3)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))).Q
    torch.testing.assert_close(whiten(x @ turn, "zca"), whiten(x, "zca") @ turn)


@pytest.mark.parametrize("kind", ["cholesky", "zca"])
def test_gradcheck(kind):
    x = mixed(6, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: whiten(x, kind, 0.01), (x,))


def test_gradient_of_zca_where_eigenvalues_are_equal():
    x = torch.cat([torch.eye(4, dtype=torch.float64), -torch.eye(4, dtype=torch.float64)]).requires_grad_()
    weights = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda x: (whiten(x, "zca", 0.0) * weights).sum(), (x,))


@pytest.mark.parametrize("kind", ["cholesky", "zca"])
def test_a_batch_of_sets_is_whitened_set_by_set(kind):
    x = torch.stack([mixed(7, 3, seed) for seed in range(4)])
    torch.testing.assert_close(whiten(x, kind), torch.stack([whiten(one, kind) for one in x]))
    torch.testing.assert_close(newton_whiten(x), torch.stack([newton_whiten(one) for one in x]))


@pytest.mark.parametrize("kind", ["cholesky", "zca"])
def test_fewer_rows_than_features(kind):
    x = mixed(3, 8).float()
    assert whiten(x, kind).isfinite().all()


@pytest.mark.parametrize("kind", ["cholesky", "zca"])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_rows_that_are_all_the_same_become_zero(kind, rows):
    x = torch.full((rows, 3), 2.0, requires_grad=True)
    for z in (whiten(x, kind), newton_whiten(x)):
        assert z.shape == (rows, 3)
        assert not z.any()
        assert torch.autograd.grad(z.sum(), x)[0].isfinite().all()


@pytest.mark.parametrize("kind", ["cholesky", "zca"])
def test_what_cannot_be_whitened_is_not_a_number(kind):
    x = mixed(9, 3)
    x[4, 1] = math.nan
    assert whiten(x, kind).isnan().any()
    assert newton_whiten(x).isnan().any()
    assert whiten(torch.ones(2, 3) * torch.tensor([[1.0], [2.0]]), "cholesky", eps=0.0).isnan().any()


@settings(max_examples=25, deadline=None)
@given(width=st.integers(1, 4), iterations=st.integers(0, 6), seed=st.integers(0, 1000))
def test_newton_is_the_iteration_of_the_paper(width, iterations, seed):
    x = mixed(10, width, seed)
    centred, sigma = covariance(x)
    normed = sigma / sigma.trace()
    transform = torch.eye(width, dtype=torch.float64)
    for _ in range(iterations):
        transform = 0.5 * (3 * transform - torch.linalg.matrix_power(transform, 3) @ normed)
    expected = centred @ transform / sigma.trace().sqrt()
    torch.testing.assert_close(newton_whiten(x, iterations), expected, rtol=1e-6, atol=1e-8)


def test_newton_converges_to_zca_and_stays_there():
    x = mixed(30, 4).float()
    for iterations in (25, 100):  # the uncoupled form has left the range of float32 by then
        torch.testing.assert_close(newton_whiten(x, iterations), whiten(x, "zca", 0.0), rtol=1e-2, atol=1e-3)


def test_newton_gradcheck():
    assert torch.autograd.gradcheck(lambda x: newton_whiten(x, 3), (mixed(6, 3).requires_grad_(),))


def test_wrong_arguments():
    with pytest.raises(ConfigError, match="whitening must be 'cholesky' or 'zca', found 'pca'"):
        whiten(mixed(5, 2), "pca")
    for eps in (-0.1, 1.0, math.nan):
        with pytest.raises(ConfigError, match=r"eps must be in \[0, 1\)"):
            whiten(mixed(5, 2), eps=eps)
    with pytest.raises(ConfigError, match="iterations must be 0 or more"):
        newton_whiten(mixed(5, 2), -1)
