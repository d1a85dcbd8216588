"""Batch statistics measured anew."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.weights import refresh_batchnorm, uniform_soup


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(144, 5),
        nn.BatchNorm1d(5),
    )


def batches(count: int = 3) -> list[Tensor]:
    return [torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(count)]


def test_statistics_are_the_mean_of_those_of_the_batches():
    model, data = network(), batches()
    means, variances = [], []
    for x in data:
        h = model[0](x)
        means.append(h.mean((0, 2, 3)))
        variances.append(h.var((0, 2, 3)))
    assert refresh_batchnorm(model, data) == 3
    torch.testing.assert_close(model[1].running_mean, torch.stack(means).mean(0))
    torch.testing.assert_close(model[1].running_var, torch.stack(variances).mean(0))
    assert model[1].num_batches_tracked == 3


def test_one_batch_makes_evaluation_equal_training():
    """The last layer is a normalisation: its output has mean zero on the batch that was measured."""
    model = network()
    refresh_batchnorm(model, batches(1))
    with torch.no_grad():
        y = model.eval()(batches(1)[0])
    # The first normalisation uses the unbiased variance in evaluation; hence the tolerance.
    torch.testing.assert_close(y.mean(0), torch.zeros(5), rtol=0, atol=2e-2)


def test_the_statistics_before_do_not_matter_nor_does_dropout():
    model, other = network(), network()
    other[1].running_mean.fill_(100)
    other[6].running_var.fill_(7)
    refresh_batchnorm(model, batches())
    refresh_batchnorm(other, batches())
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_everything_else_is_left_alone():
    model = network()
    model[1].eval()
    model[6].momentum = 0.3
    before = copy.deepcopy(dict(model.named_parameters()))
    modes = [module.training for module in model.modules()]
    refresh_batchnorm(model, batches())
    assert [module.training for module in model.modules()] == modes
    assert model[1].momentum == 0.1
    assert model[6].momentum == 0.3
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(dict(model.named_parameters()), before, rtol=0, atol=0)


def test_any_kind_of_batch():
    expected, model = network(), network()
    refresh_batchnorm(expected, batches())
    labels = torch.zeros(6, dtype=torch.int64)
    x, y, z = batches()
    refresh_batchnorm(model, iter([x, (y, labels), Batch((z,), labels, labels)]))
    torch.testing.assert_close(model.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_a_soup_needs_it():
    """The mean of two networks of opposite signs is on a scale that the averaged variance does not know."""
    one = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
    two = copy.deepcopy(one)
    with torch.no_grad():
        two[0].weight.mul_(-0.5)
    for each in (one, two):
        refresh_batchnorm(each, batches())
    soup = copy.deepcopy(one)
    soup.load_state_dict(uniform_soup([one.state_dict(), two.state_dict()]))
    soup.eval()
    x = torch.cat(batches())
    assert float(soup(x).detach().std()) < 0.6
    refresh_batchnorm(soup, batches())
    assert float(soup(x).detach().std()) == pytest.approx(1, abs=0.1)


def test_without_batch_normalisation_nothing_is_read():
    def forbidden():
        raise AssertionError("read a batch")
        yield

    assert refresh_batchnorm(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), forbidden()) == 0


def test_after_an_error_the_statistics_are_as_before():
    def broken():
        yield batches(1)[0]
        raise OSError("disk gone")

    model = network()
    refresh_batchnorm(model, batches())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(OSError, match="disk gone"):
        refresh_batchnorm(model, broken())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    with pytest.raises(ConfigError, match="batches is empty"):
        refresh_batchnorm(model, [])
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(module.training for module in model.modules())
    assert model[1].momentum == 0.1
