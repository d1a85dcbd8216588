"""Multiplications of an image: of plain layers by hand, and of those that leave filters out by their own count."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from repertoire.compress import DynamicConv2d, filter_cost, multiplications
from repertoire.errors import ConfigError


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.Flatten(), nn.Linear(180, 3))


def test_plain_layers():
    found = multiplications(net(), lambda: [torch.rand(7, 2, 6, 6)])
    assert found == 36 * 4 * 2 * 9 + 36 * 5 * 4 + 180 * 3


@pytest.mark.parametrize("off", [0, 4, 2])
def test_filters_that_are_off_are_not_counted(off):
    model = net()
    layer = DynamicConv2d(model[0])
    with torch.no_grad():  # the first so many are off for every image
        layer.predictor.weight.zero_()
        layer.predictor.bias.copy_(torch.where(torch.arange(4) < off, -1.0, 1.0))
    model[0] = layer
    images = torch.rand(5, 2, 6, 6)
    expected = 36 * (4 - off) * 2 * 9 + 2 * 4 + 36 * 5 * 4 + 180 * 3
    assert multiplications(model, lambda: [images[:2], images[2:]]) == expected
    assert filter_cost(model, [images]).used == 36 * (4 - off) * 2 * 9 + 2 * 4


def test_the_network_stays_and_images_are_needed():
    model = net()
    before = copy.deepcopy(model.state_dict())
    multiplications(model, lambda: [torch.rand(1, 2, 6, 6)])
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    with pytest.raises(ConfigError, match="batches is empty"):
        multiplications(model, list)
