from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire import registry
from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import HLGauss, hl_gauss_loss, hl_gauss_targets, hl_gauss_values


def normal_cdf(x):
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5),
    bins=st.integers(1, 9),
    low=st.sampled_from([-10.0, 0.0, 3.0]),
    span=st.sampled_from([0.1, 1.0, 50.0]),
    sigma=st.sampled_from([0.3, 0.75, 2.0]),
    seed=st.integers(0, 1000),
)
def test_is_the_formula(rows, bins, low, span, sigma, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, bins, generator=generator, dtype=torch.float64) * 3
    values = low + span * torch.rand(rows, generator=generator, dtype=torch.float64)
    high, width = low + span, span / bins
    histograms, losses, means = [], [], []
    for row, y in zip(logits.tolist(), values.tolist(), strict=True):
        at_edges = [normal_cdf((low + k * width - y) / (sigma * width)) for k in range(bins + 1)]
        q = [(at_edges[k + 1] - at_edges[k]) / (at_edges[-1] - at_edges[0]) for k in range(bins)]
        p = [math.exp(f) / sum(math.exp(g) for g in row) for f in row]
        histograms.append(q)
        losses.append(-sum(a * math.log(b) for a, b in zip(q, p, strict=True)))
        means.append(sum(b * (low + (k + 0.5) * width) for k, b in enumerate(p)))
    expected = torch.tensor(histograms, dtype=torch.float64)
    torch.testing.assert_close(hl_gauss_targets(values, bins, low=low, high=high, sigma=sigma), expected)
    module = HLGauss(low, high, sigma, reduction="none")
    each = module(logits, values)
    torch.testing.assert_close(each, torch.tensor(losses, dtype=torch.float64))
    torch.testing.assert_close(hl_gauss_loss(logits, values, low=low, high=high, sigma=sigma), each.mean())
    torch.testing.assert_close(module.values(logits), torch.tensor(means, dtype=torch.float64))


@settings(max_examples=25, deadline=None)
@given(value=st.floats(2.0, 8.0), sigma=st.floats(0.5, 1.0))
def test_targets_give_back_their_value(value, sigma):
    """Away from the ends of the range the mean of the histogram is the number it was made from."""
    q = hl_gauss_targets(torch.tensor([value], dtype=torch.float64), 50, low=0.0, high=10.0, sigma=sigma)
    torch.testing.assert_close(q.sum(1), torch.ones(1, dtype=torch.float64))
    found = hl_gauss_values(q.clamp_min(1e-300).log(), low=0.0, high=10.0)
    assert float(found) == pytest.approx(value, abs=2e-3)


def test_numbers_out_of_range_count_as_its_ends():
    found = hl_gauss_targets(torch.tensor([-1e9, 1e9]), 4, low=0.0, high=1.0)
    torch.testing.assert_close(found, hl_gauss_targets(torch.tensor([0.0, 1.0]), 4, low=0.0, high=1.0))
    assert found.isfinite().all()


def test_small_differences_of_large_numbers_survive():
    exact = hl_gauss_targets(torch.tensor([0.3], dtype=torch.float64), 10, low=0.0, high=1.0)
    shifted = hl_gauss_targets(torch.tensor([1e6 + 0.3], dtype=torch.float64), 10, low=1e6, high=1e6 + 1)
    torch.testing.assert_close(shifted, exact, rtol=1e-6, atol=1e-9)


def test_without_a_range_bins_are_ordered_classes():
    logits, classes = torch.randn(4, 4), torch.tensor([0, 1, 2, 3])
    torch.testing.assert_close(hl_gauss_loss(logits, classes), hl_gauss_loss(logits, classes, low=-0.5, high=3.5))
    nearly = torch.eye(4)[classes] * 50
    torch.testing.assert_close(HLGauss().values(nearly), classes.float())
    assert hl_gauss_targets(classes, 4, low=-0.5, high=3.5).argmax(1).tolist() == [0, 1, 2, 3]
    beside, far = torch.eye(4)[[1]] * 5, torch.eye(4)[[3]] * 5
    assert hl_gauss_loss(beside, classes[:1]) < hl_gauss_loss(far, classes[:1])


def test_gradcheck():
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    values = torch.tensor([0.0, 0.5, 0.9], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f: hl_gauss_loss(f, values, low=0.0, high=1.0), (logits,))


def test_half_precision_numbers():
    values = torch.tensor([0.25, 0.5], dtype=torch.float16)
    found = hl_gauss_targets(values, 8, low=0.0, high=1.0)
    torch.testing.assert_close(found, hl_gauss_targets(values.float(), 8, low=0.0, high=1.0))


@pytest.mark.parametrize("option", ["low=0", "high=1", "low=1,high=0", "low=0,high=inf", "sigma=0"])
def test_options_out_of_range(option):
    with pytest.raises(
        ConfigError, match=r"low and high go together|low must be less|high must be a finite|sigma must be positive"
    ):
        registry.build("losses", f"hl-gauss:{option}")


def test_arguments_out_of_range():
    with pytest.raises(ConfigError, match="low must be less than high"):
        hl_gauss_targets(torch.zeros(1), 3, low=1.0, high=1.0)
    with pytest.raises(ConfigError, match="bins must be positive, found 0"):
        hl_gauss_targets(torch.zeros(1), 0, low=0.0, high=1.0)
    with pytest.raises(ConfigError, match="low and high go together"):
        hl_gauss_loss(torch.zeros(1, 3), torch.zeros(1), low=0.0)
    with pytest.raises(ShapeError, match=r"logits must be floating point \[N, C\]"):
        hl_gauss_values(torch.zeros(3), low=0.0, high=1.0)
