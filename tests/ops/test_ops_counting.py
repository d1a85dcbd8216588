from __future__ import annotations

import pytest
import torch
from torch import nn

from repertoire.ops import not_counting, rewinding


def test_running_statistics_stay_and_batches_are_still_normalised_by_their_own():
    layer = nn.BatchNorm1d(3).train()
    layer(torch.randn(16, 3))
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    x = 5 + 3 * torch.randn(16, 3)
    with not_counting(layer):
        y = layer(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    layer(x)
    assert int(layer.num_batches_tracked) == 2
    assert not torch.equal(layer.running_mean, before["running_mean"])


def test_statistics_move_again_after_an_error():
    layer = nn.BatchNorm1d(3)
    with pytest.raises(ValueError, match="stop"), not_counting(layer):
        raise ValueError("stop")
    assert layer.momentum == 0.1
    assert layer.num_batches_tracked is not None


def test_dropout_masks_are_those_of_before_each_time():
    dropout, x = nn.Dropout(0.5).train(), torch.ones(4, 50)
    rewind = rewinding(x.device)
    first, after = dropout(x), torch.rand(3)
    for _ in range(2):
        rewind()
        assert torch.equal(dropout(x), first)
    assert torch.equal(torch.rand(3), after)
    assert not torch.equal(dropout(x), first)
