"""How well heat maps find the object, against loops over the pixels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ShapeError
from repertoire.explain import energy_inside, mask_intersection, pointing_game


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


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(2, 6), st.sampled_from([2, 1000]), st.integers(0, 999))
def test_intersection_agrees_with_counting(count, height, width, levels, seed):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randint(levels, (count, height, width), generator=generator).double()
    masks = torch.rand(count, height, width, generator=generator) < 0.5
    masks[:, 0, 0] = True
    found = mask_intersection(maps, masks, threshold=0.4)
    matched = mask_intersection(maps, masks)
    for i in range(count):
        heat, inside = maps[i].flatten().tolist(), masks[i].flatten().tolist()
        hot = [h >= 0.4 * max(heat) and max(heat) > 0 for h in heat]
        both = sum(a and b for a, b in zip(hot, inside, strict=True))
        either = sum(a or b for a, b in zip(hot, inside, strict=True))
        assert found[i] == pytest.approx(both / either)
        # The mean overlap of all ways to break ties: each pixel at the border is as likely as the next.
        area = sum(inside)
        border = sorted(heat, reverse=True)[area - 1]
        equal = [i for i, h in enumerate(heat) if h == border]
        above = [i for i, h in enumerate(heat) if h > border]
        overlap = sum(inside[i] for i in above) + (area - len(above)) / len(equal) * sum(inside[i] for i in equal)
        assert matched[i] == pytest.approx(overlap / (2 * area - overlap))


def test_intersection_of_perfect_and_opposite_maps():
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, 1:3, 1:3] = True
    assert mask_intersection(masks.float(), masks) == mask_intersection(masks.float(), masks, threshold=0.2) == 1
    assert mask_intersection(1 - masks.float(), masks) == 0
    assert mask_intersection(torch.zeros(1, 4, 4), masks, threshold=0.2) == 0


def test_intersection_refuses():
    masks = torch.ones(1, 2, 2, dtype=torch.bool)
    with pytest.raises(ShapeError, match="threshold must lie"):
        mask_intersection(torch.ones(1, 2, 2), masks, threshold=0.0)
    with pytest.raises(ShapeError, match="negative"):
        mask_intersection(-torch.ones(1, 2, 2), masks, threshold=0.5)
