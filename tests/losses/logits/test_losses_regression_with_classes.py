from __future__ import annotations

import bisect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire import registry
from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import RegressionWithClasses, bin_edges, regression_with_classes_loss


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(0, 5),
    st.booleans(),
    st.sampled_from([0.0, 0.3, 5.0]),
    st.sampled_from(["squared", "absolute"]),
    st.integers(0, 999),
)
def test_is_the_formula(rows, bins, given_edges, scale, error, seed):
    generator = torch.Generator().manual_seed(seed)
    outputs = 2 * torch.randn(rows, 1 + bins, generator=generator, dtype=torch.float64)
    targets = 3 * torch.randn(rows, generator=generator, dtype=torch.float64)
    drawn = torch.randn(max(bins - 1, 0), generator=generator).sort().values
    edges = drawn.tolist() if given_edges else [k + 0.5 for k in range(bins - 1)]
    expected = []
    for row, y in zip(outputs.tolist(), targets.tolist(), strict=True):
        loss = (row[0] - y) ** 2 if error == "squared" else abs(row[0] - y)
        if bins:
            scores = row[1:]
            loss -= scale * (scores[bisect.bisect_right(edges, y)] - math.log(sum(map(math.exp, scores))))
        expected.append(loss)
    module = RegressionWithClasses(drawn if given_edges else None, scale, error, reduction="none")
    each = module(outputs, targets)
    torch.testing.assert_close(each, torch.tensor(expected, dtype=torch.float64))
    assert torch.equal(module.values(outputs), outputs[:, 0])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 7), st.integers(0, 999))
def test_edges(count, bins, seed):
    values = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    wide = bin_edges(values, bins)
    expected = torch.linspace(float(values.min()), float(values.max()), bins + 1, dtype=torch.float64)[1:-1]
    torch.testing.assert_close(wide, expected)
    full = bin_edges(values, bins, balanced=True)
    shares = torch.arange(1, bins, dtype=torch.float64) / bins
    torch.testing.assert_close(full, torch.quantile(values, shares) if bins > 1 else full)


def test_a_number_on_an_edge_is_in_the_upper_bin_and_those_outside_in_the_outer_ones():
    outputs = torch.tensor([[0.0, 9.0, 0.0, -9.0]]).repeat(4, 1)
    each = regression_with_classes_loss(
        outputs, torch.tensor([-1e3, 1.0, 2.0, 1e3]), edges=torch.tensor([1.0, 2.0]), reduction="none"
    )
    scores = outputs[0, 1:].log_softmax(0)
    torch.testing.assert_close(each - torch.tensor([1e6, 1.0, 4.0, 1e6]), -scores[[0, 1, 2, 2]], atol=0.1, rtol=0)


def test_edges_are_part_of_the_state():
    loss = RegressionWithClasses([1.0, 2.0])
    assert loss.state_dict().keys() == {"edges"}
    assert not RegressionWithClasses().state_dict()


def test_gradcheck():
    outputs = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda f: regression_with_classes_loss(f, torch.tensor([0.1, 1.0, 2.2])), (outputs,)
    )


def test_arguments_out_of_range():
    with pytest.raises(ConfigError, match="scale must be 0 or more"):
        registry.build("losses", "regression-with-classes:scale=-1")
    with pytest.raises(ConfigError, match="error"):
        registry.build("losses", "regression-with-classes:error=cubed")
    with pytest.raises(ValueError, match="edges must be increasing"):
        RegressionWithClasses([2.0, 1.0])
    with pytest.raises(ShapeError, match=r"edges must be \[2\], those between 3 bins, found \[1\]"):
        regression_with_classes_loss(torch.zeros(1, 4), torch.zeros(1), edges=torch.zeros(1))
    with pytest.raises(ShapeError, match=r"not finite are rows 1"):
        regression_with_classes_loss(torch.zeros(2, 4), torch.tensor([0.0, math.nan]))
    with pytest.raises(ShapeError, match="found no column"):
        regression_with_classes_loss(torch.zeros(2, 0), torch.zeros(2))
    with pytest.raises(ShapeError, match="values must be"):
        bin_edges(torch.zeros(0), 3)
    with pytest.raises(ConfigError, match="bins must be positive"):
        bin_edges(torch.zeros(2), 0)
