"""How well heat maps find the object, against loops over the pixels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ShapeError
from repertoire.explain import energy_inside, pointing_game


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 4), st.integers(1, 6), st.integers(1, 6), st.sampled_from([2, 1000]), st.integers(0, 99))
def test_equal_their_definitions(count, height, width, levels, seed):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randint(0, levels, (count, height, width), generator=generator).double()
    masks = torch.rand(count, height, width, generator=generator) < 0.5
    masks[:, 0, 0] = True
    pointing, energy = pointing_game(maps, masks), energy_inside(maps, masks)
    assert pointing.shape == energy.shape == (count,)
    for i in range(count):
        pixels = [(float(maps[i, r, c]), bool(masks[i, r, c])) for r in range(height) for c in range(width)]
        peak, total = max(value for value, _ in pixels), sum(value for value, _ in pixels)
        hits = [inside for value, inside in pixels if value == peak]
        assert float(pointing[i]) == pytest.approx(sum(hits) / len(hits))
        inside = sum(value for value, inside in pixels if inside)
        assert float(energy[i]) == pytest.approx(inside / total if total else 0.0)


def test_a_constant_map_scores_the_share_of_the_object():
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, 0] = True
    assert float(pointing_game(torch.ones(1, 4, 4), masks)) == 0.25
    assert float(energy_inside(torch.full((1, 4, 4), 0.3), masks)) == pytest.approx(0.25)


def test_half_precision_sums_do_not_overflow():
    maps, masks = torch.full((1, 64, 64), 60.0, dtype=torch.float16), torch.ones(1, 64, 64, dtype=torch.bool)
    assert float(energy_inside(maps, masks)) == pytest.approx(1)


@pytest.mark.parametrize("score", [pointing_game, energy_inside])
@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool), r"\[N, H, W\]"),
        (torch.zeros(2, 3, 3, dtype=torch.int64), torch.ones(2, 3, 3, dtype=torch.bool), "floating point"),
        (torch.zeros(2, 3, 3), torch.ones(2, 3, 4, dtype=torch.bool), "masks must be bool"),
        (torch.zeros(2, 3, 3), torch.ones(2, 3, 3), "masks must be bool"),
        (torch.zeros(2, 3, 3), torch.zeros(2, 3, 3, dtype=torch.bool), r"without an object, at positions \[0, 1\]"),
    ],
)
def test_input_that_does_not_fit(score, maps, masks, message):
    with pytest.raises(ShapeError, match=message):
        score(maps, masks)


def test_energy_is_not_negative():
    with pytest.raises(ShapeError, match="must not be negative"):
        energy_inside(torch.full((1, 2, 2), -1.0), torch.ones(1, 2, 2, dtype=torch.bool))
