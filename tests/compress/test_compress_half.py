"""Half precision."""

from __future__ import annotations

import torch
from torch import nn

from repertoire.compress import half


def test_numbers_are_rounded_to_the_nearest_and_large_ones_stay():
    net = nn.Linear(2, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 2049.0], [1e-9, -0.1]]))
        net.bias.copy_(torch.tensor([7e4, 0.0]))  # float16 ends at 65504
    stored = half(net)
    assert stored.tensors["bias"].dtype == torch.float32
    built = stored.build(nn.Linear(2, 2))
    # 2049 lies between two neighbours 2 apart, 1e-9 is below the least number, and -0.1 has 10 bits after the first.
    torch.testing.assert_close(built.weight.detach(), torch.tensor([[1.0, 2048.0], [0.0, -0.0999755859375]]))
    assert built.weight.dtype == torch.float32
    torch.testing.assert_close(half(net, "bfloat16").build(nn.Linear(2, 2)).bias.detach(), torch.tensor([70144.0, 0.0]))


def test_it_is_half_as_large():
    net = nn.Linear(1000, 1000)
    assert half(net).bytes < 0.501 * 4 * 1001 * 1000
