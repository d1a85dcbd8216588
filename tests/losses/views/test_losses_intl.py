from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError
from repertoire.losses import INTL, intl_loss


def normed(z, iterations):
    """Iterative normalisation of the columns."""
    centred = z - z.mean(0)
    sigma = centred.T @ centred / (len(z) - 1)
    transform = torch.eye(z.shape[1], dtype=z.dtype)
    for _ in range(iterations):
        transform = 0.5 * (3 * transform - transform @ transform @ transform @ sigma / sigma.trace())
    return centred @ transform / sigma.trace().sqrt()


def reference(x, y, iterations, weight, over_samples):
    if over_samples:
        hats = [normed(z.T, iterations) for z in (x, y)]
        rows = [hat.T for hat in hats]
    else:
        hats = rows = [normed(z, iterations) for z in (x, y)]
    cosines = [(a / a.norm()) @ (b / b.norm()) for a, b in zip(*rows, strict=True)]
    trace = sum(((1 - hat[:, j].var()) ** 2) for hat in hats for j in range(hat.shape[1]))
    return sum(2 - 2 * c for c in cosines) / len(cosines) + weight * trace


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(3, 9),
    width=st.integers(3, 9),
    iterations=st.integers(1, 5),
    axis=st.sampled_from(["auto", "features", "samples"]),
    seed=st.integers(0, 1000),
)
def test_is_the_paper(rows, width, iterations, axis, seed):
    x, y = torch.randn(2, rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    over_samples = axis == "samples" or (axis == "auto" and rows < width)
    loss = intl_loss(x, y, iterations=iterations, trace_weight=0.3, axis=axis)
    torch.testing.assert_close(loss, reference(x, y, iterations, 0.3, over_samples), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("width", "weight"), [(64, 0.03), (16, 0.01), (3, 0.01)])
def test_the_weight_of_the_trace_grows_with_the_number_of_features(width, weight):
    x, y = torch.randn(2, 80, width, dtype=torch.float64)
    torch.testing.assert_close(INTL()(x, y), intl_loss(x, y, trace_weight=weight))


def test_three_views_are_the_mean_over_their_pairs():
    x, y, z = torch.randn(3, 8, 3, dtype=torch.float64)
    pairs = [intl_loss(*pair) for pair in ((x, y), (x, z), (y, z))]
    torch.testing.assert_close(intl_loss(x, y, z), torch.stack(pairs).mean())


def test_a_dimension_that_is_not_used_counts_in_full_and_gets_no_infinite_gradient():
    x = torch.randn(9, 3, dtype=torch.float64)
    x[:, 2] = 0.0
    x.requires_grad_()
    loss = intl_loss(x, x.detach(), iterations=20, trace_weight=1.0)
    assert math.isclose(float(loss.detach()), 2.0, abs_tol=1e-6)  # one missing feature in each of the two views
    loss.backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("axis", ["features", "samples"])
def test_gradcheck(axis):
    x, y = (torch.randn(5, 5, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(lambda x, y: intl_loss(x, y, axis=axis), (x, y))


def test_wrong_arguments():
    with pytest.raises(ConfigError, match="iterations must be positive"):
        INTL(iterations=0)
    with pytest.raises(ConfigError, match="axis must be 'auto', 'features' or 'samples'"):
        intl_loss(torch.eye(2), torch.eye(2), axis="rows")
