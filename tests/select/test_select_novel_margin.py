from __future__ import annotations

import numpy as np
import pytest
import torch

from repertoire.errors import ConfigError, ShapeError
from repertoire.select import StableMapping, novel_margin


def test_every_new_class_gets_its_share_and_known_ones_come_last():
    generator = torch.Generator().manual_seed(0)
    p = (3 * torch.randn(200, 6, generator=generator)).softmax(1)
    found = novel_margin(p, 40, known=2)
    counts = torch.bincount(p[found].argmax(1), minlength=6)
    assert counts.tolist() == [0, 0, 10, 10, 10, 10]
    everything = novel_margin(p, 200, known=2)
    new = p[everything].argmax(1) >= 2
    assert bool(new[: int(new.sum())].all())


def test_within_a_class_the_smallest_margins_are_taken_or_the_largest():
    generator = torch.Generator().manual_seed(1)
    p = (3 * torch.randn(100, 4, generator=generator)).softmax(1)
    for sure in (False, True):
        found = novel_margin(p, 9, known=1, sure=sure)
        for k in (1, 2, 3):
            mine = [i for i in range(100) if int(p[i].argmax()) == k]
            margins = {i: float(p[i].topk(2).values[0] - p[i].topk(2).values[1]) for i in mine}
            best = sorted(mine, key=lambda i: margins[i], reverse=sure)[:3]
            assert {i for i in found.tolist() if i in mine} == set(best)


def test_what_a_small_group_leaves_over_is_filled_from_other_new_ones():
    p = torch.tensor([[0.0, 0.9, 0.1], [0.0, 0.8, 0.2], [0.0, 0.7, 0.3], [0.0, 0.2, 0.8], [1.0, 0.0, 0.0]])
    assert set(novel_margin(p, 4, known=1).tolist()) == {0, 1, 2, 3}


def test_no_new_class_is_refused():
    with pytest.raises(ShapeError, match="new class beside the 3"):
        novel_margin(torch.full((2, 3), 1 / 3), 1, known=3)


def test_a_mapping_survives_a_round_that_says_otherwise():
    truth = np.arange(60) % 3
    flipped = np.array([1, 0, 2])[truth]
    stable, hasty = StableMapping(3, 3), StableMapping(3, 3, momentum=0)
    for mapping in (stable, hasty):
        for _ in range(3):
            mapping.update(truth, truth)
        mapping.update(flipped, truth)
    assert stable.mapping.tolist() == [0, 1, 2]
    assert hasty.mapping.tolist() == [1, 0, 2]
    for _ in range(9):
        stable.update(flipped, truth)
    assert stable.mapping.tolist() == [1, 0, 2], "what stays is believed in the end"


def test_clusters_without_a_class_and_what_does_not_fit():
    mapping = StableMapping(3, 2)
    assert mapping.update(torch.tensor([2, 2, 0]), [0, 0, 1]).tolist() == [1, -1, 0]
    with pytest.raises(ShapeError, match="must lie in"):
        mapping.update([3], [0])
    with pytest.raises(ShapeError, match="whole numbers"):
        mapping.update([0, 1], [0])
    with pytest.raises(ShapeError, match="at most 2"):
        StableMapping(2, 3)
    with pytest.raises(ConfigError, match="momentum"):
        StableMapping(2, 2, momentum=1.0)
