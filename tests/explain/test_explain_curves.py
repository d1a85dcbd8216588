from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from repertoire.errors import ConfigError, ShapeError
from repertoire.explain import area_under_curve, deletion_curve, insertion_curve
from repertoire.explain.trust._curves import fade, pixel_ranks, without_pixels


class Linear(nn.Module):
    """Two classes; the logit of the first is a weighted sum of the pixels, that of the other zero."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)
        self.seen = []

    def forward(self, images):
        assert not self.training
        self.seen.append(len(images))
        first = (images[:, 0] * self.weights).sum((1, 2))
        return torch.stack([first, torch.zeros_like(first)], 1)


def reference(weights, image, heat, base, steps, insert):
    """Pixel by pixel, as a person would do it."""
    order = sorted(range(heat.numel()), key=lambda i: -heat.flatten()[i].item())
    now = (base if insert else image).flatten().clone()
    goal = (image if insert else base).flatten()
    curve, done = [], 0
    for step in range(steps + 1):
        while done < len(order) * step // steps:
            now[order[done]] = goal[order[done]]
            done += 1
        curve.append(1 / (1 + math.exp(-float((now * weights.flatten()).sum()))))
    return curve


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(1, 9), st.booleans(), st.integers(0, 999))
def test_agrees_with_moving_pixels_one_by_one(count, height, width, steps, insert, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(height, width, generator=generator, dtype=torch.float64)
    images = torch.rand(count, 1, height, width, generator=generator, dtype=torch.float64)
    maps = torch.rand(count, height, width, generator=generator, dtype=torch.float64)
    base = torch.rand(1, height, width, generator=generator, dtype=torch.float64)
    curve = insertion_curve if insert else deletion_curve
    found = curve(Linear(weights), images, maps, 0, steps=steps, baseline=base, batch_size=3)
    expected = [reference(weights, x[0], h, base[0], steps, insert) for x, h in zip(images, maps, strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_the_right_map_beats_its_opposite():
    weights = torch.linspace(-1, 1, 64).view(8, 8)
    images, model = torch.ones(1, 1, 8, 8), Linear(weights)
    good, bad = weights[None], -weights[None]
    for targets in (0, torch.zeros(1, dtype=torch.int64)):
        rise = [area_under_curve(insertion_curve(model, images, m, targets, baseline="grey")) for m in (good, bad)]
        fall = [area_under_curve(deletion_curve(model, images, m, targets, baseline="grey")) for m in (good, bad)]
        assert rise[0] > rise[1]
        assert fall[0] < fall[1]


def test_ends_are_image_and_baseline():
    model, images = Linear(torch.randn(6, 6)), torch.rand(3, 1, 6, 6)
    whole = model.eval()(images).softmax(1)
    chosen = whole.argmax(1)
    p = whole.amax(1)
    for baseline in ("blur", "mean", "grey"):
        gone = model(without_pixels(images, baseline)).softmax(1).gather(1, chosen[:, None])[:, 0]
        rise = insertion_curve(model, images, torch.rand(3, 6, 6), baseline=baseline, steps=5)
        fall = deletion_curve(model, images, torch.rand(3, 6, 6), baseline=baseline, steps=5)
        torch.testing.assert_close(rise[:, [0, -1]], torch.stack([gone, p], 1))
        torch.testing.assert_close(fall[:, [0, -1]], torch.stack([p, gone], 1))


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_ends_that_are_known_are_not_computed_again(steps: int):
    model, images = Linear(torch.randn(6, 6)).eval(), torch.rand(3, 1, 6, 6)
    ranks, targets = pixel_ranks(torch.rand(3, 6, 6)), torch.tensor([0, 1, 1])
    whole = fade(model, images, ranks, targets, steps, "mean", 4, insert=False)
    model.seen.clear()
    ends = fade(model, images, ranks, targets, steps, "mean", 4, insert=False, ends=whole[:, [0, -1]])
    torch.testing.assert_close(ends, whole)
    assert sum(model.seen) == 3 * (steps - 1)


def test_no_batch_is_larger_than_it_may_be():
    model = Linear(torch.randn(4, 4)).train()
    insertion_curve(model, torch.rand(5, 1, 4, 4), torch.rand(5, 4, 4), steps=9, batch_size=7)
    assert max(model.seen) == 7
    assert sum(model.seen) == 5 * 10 + 5
    assert model.training


def test_equal_pixels_come_in_random_order():
    """Of a map that is zero in its lower half and in its upper right, no half comes first in the order of reading."""
    maps = torch.zeros(1, 16, 16)
    maps[0, :8, :8] = 1
    ranks = pixel_ranks(maps).view(16, 16)
    assert sorted(ranks.flatten().tolist()) == list(range(256))
    assert ranks[:8, :8].max() == 63
    assert 130 < ranks[8:].float().mean() < 190
    assert abs(ranks[8:, :8].float().mean() - ranks[8:, 8:].float().mean()) < 25


def test_blur_keeps_the_mean_and_takes_the_detail():
    images = torch.rand(2, 3, 32, 48)
    blurred = without_pixels(images, "blur")
    torch.testing.assert_close(blurred.mean((2, 3)), images.mean((2, 3)), atol=0.02, rtol=0)
    assert blurred.var() < 0.05 * images.var()
    flat = torch.full((1, 1, 3, 1), 0.3)
    torch.testing.assert_close(without_pixels(flat, "blur"), flat)


def test_area():
    torch.testing.assert_close(area_under_curve(torch.tensor([[0.0, 1.0], [1.0, 1.0]])), torch.tensor([0.5, 1.0]))
    with pytest.raises(ShapeError, match="curve must be"):
        area_under_curve(torch.zeros(3, 1))


def test_no_images():
    assert insertion_curve(Linear(torch.ones(2, 2)), torch.rand(0, 1, 2, 2), torch.rand(0, 2, 2), steps=3).shape == (
        0,
        4,
    )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"maps": torch.rand(2, 3, 4)}, ShapeError, "maps must be"),
        ({"targets": torch.tensor([0, 5])}, ShapeError, "classes from 0 to 1"),
        ({"targets": torch.zeros(2, 2, dtype=torch.int64)}, ShapeError, "one class an image"),
        ({"baseline": "white"}, ConfigError, "baseline must be"),
        ({"baseline": torch.rand(3, 9)}, ShapeError, "baseline must broadcast"),
        ({"steps": 0}, ConfigError, "steps must be at least 1"),
        ({"batch_size": 0}, ConfigError, "batch_size must be at least 1"),
    ],
)
def test_bad_input(changes, error, message):
    arguments = {"images": torch.rand(2, 1, 4, 4), "maps": torch.rand(2, 4, 4), **changes}
    with pytest.raises(error, match=message):
        insertion_curve(Linear(torch.ones(4, 4)), arguments.pop("images"), arguments.pop("maps"), **arguments)


def test_scores_inside_a_mapping_and_half_precision():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

        def forward(self, x):
            return {"logits": self.net(x), "other": 0}

    found = deletion_curve(Wrapped().bfloat16(), torch.rand(2, 1, 4, 4), torch.rand(2, 4, 4), steps=4)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
