"""What units are predicted to cost, and that partitions follow it."""

from __future__ import annotations

import torch
from torch import nn

from repertoire.local import chain_of, partition
from repertoire.local._costs import costs_of, work_of


def test_balance_by_time_follows_the_work_and_not_the_memory():
    # Two units of equal memory, one with nine times the arithmetic, then cheap ones.
    cheap = [nn.Conv2d(32, 32, 1, bias=False) for _ in range(4)]
    net = nn.Sequential(nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 7, padding=3, bias=False), *cheap)
    chain = chain_of(net, torch.zeros(2, 3, 16, 16))
    work = costs_of(chain, "time")
    assert work[1] > 3 * work[2]
    assert work[2] == work[3]
    memory = costs_of(chain, "memory")
    assert memory[1] == memory[2]
    assert partition(chain, 2, balance="time") == [1, 5]
    assert partition(chain, 2, balance="memory") != [1, 5]


def test_work_of_a_product_is_its_operations_and_its_bytes():
    assert work_of(nn.Linear(8, 4, bias=False), (8,)) == 2 * 8 * 4 + 10 * 4 * (8 + 4 + 8 * 4 / 2)
