"""The procedural shapes: what is drawn, and what is made hard."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.data._draw import _SHAPES, COLOURS, SHAPES, TEXTURES, draw
from repertoire.data._shapes import _labels, shapes
from repertoire.data._source import SourceRequest
from repertoire.data._types import ImageSet
from repertoire.errors import ConfigError

SMALL = SourceRequest(size=16)


def test_splits_have_what_they_promise() -> None:
    splits = shapes(SourceRequest(size=24, val=0.1, test=0.2), count=300, classes=5)
    assert splits.classes == SHAPES[:5]
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [210, 30, 60]
    for part in (splits.train, splits.val, splits.test):
        assert part.images.shape == (len(part), 24, 24, 3)
        assert part.masks is not None
        assert part.masks.shape == (len(part), 24, 24)
        assert part.counts().max() - part.counts().min() <= 1
        np.testing.assert_array_equal(part.factors["clean_label"], part.labels)
        assert len(np.unique(part.keys)) == len(part)
        covered = part.masks.mean((1, 2))
        assert covered.min() > 0.02
        assert covered.max() < 0.5
    everything = np.concatenate([part.keys for part in (splits.train, splits.val, splits.test)])
    assert len(np.unique(everything)) == 300
    assert splits.notes == ()


def test_default_size_and_the_extremes() -> None:
    assert shapes(SourceRequest(), count=60, classes=2).train.size == (32, 32)
    assert shapes(SourceRequest(size=256), count=20, classes=2).train.size == (256, 256)


def assert_same(left: ImageSet, right: ImageSet, count: int) -> None:
    np.testing.assert_array_equal(left.images[:count], right.images[:count])
    np.testing.assert_array_equal(left.masks[:count], right.masks[:count])
    np.testing.assert_array_equal(left.labels[:count], right.labels[:count])
    np.testing.assert_array_equal(left.keys[:count], right.keys[:count])
    for name, values in left.factors.items():
        np.testing.assert_array_equal(values[:count], right.factors[name][:count])


def test_images_are_a_function_of_the_seed_and_not_of_the_count() -> None:
    options = {"classes": 4, "tail": 5.0, "noise": 0.2, "correlation": 0.5}
    few, many = shapes(SMALL, count=150, **options), shapes(SMALL, count=900, **options)
    assert_same(few.train, many.train, len(few.train))
    assert_same(few.val, many.val, len(few.val))
    assert_same(few.test, many.test, len(few.test))
    again = shapes(SMALL, count=150, **options)
    assert_same(few.train, again.train, len(few.train))
    other = shapes(SourceRequest(size=16, seed=1), count=150, **options)
    assert not np.isin(other.train.keys, many.train.keys).any()


def test_options_that_do_not_draw_change_no_image() -> None:
    plain, noisy = shapes(SMALL, count=120, classes=3), shapes(SMALL, count=120, classes=3, noise=0.5)
    np.testing.assert_array_equal(plain.train.images, noisy.train.images)


@pytest.mark.parametrize(("nuisance", "values"), [("texture", len(TEXTURES)), ("colour", len(COLOURS))])
def test_the_shortcut_is_in_training_and_not_in_the_test(nuisance: str, values: int) -> None:
    splits = shapes(SMALL, count=4000, classes=6, correlation=0.9, nuisance=nuisance)
    expected = 0.9 + 0.1 / values
    for part in (splits.train, splits.val):
        rate = (part.factors[nuisance] == part.labels % values).mean()
        assert abs(rate - expected) < 4 * np.sqrt(expected * (1 - expected) / len(part))
    rate = (splits.test.factors[nuisance] == splits.test.labels % values).mean()
    assert abs(rate - 1 / values) < 4 * np.sqrt(1 / values / len(splits.test))
    other = "colour" if nuisance == "texture" else "texture"
    assert abs((splits.train.factors[other] == splits.train.labels).mean() - 1 / 8) < 0.03
    assert nuisance in splits.notes[0]


def test_full_correlation_leaves_no_exception() -> None:
    train = shapes(SMALL, count=300, classes=12, correlation=1.0).train
    np.testing.assert_array_equal(train.factors["texture"], train.labels % len(TEXTURES))


def test_the_tail_is_in_training_only() -> None:
    splits = shapes(SMALL, count=3000, classes=5, tail=10.0)
    counts = splits.train.counts()
    expected = 10.0 ** (-np.arange(5) / 4)
    np.testing.assert_allclose(counts, len(splits.train) * expected / expected.sum(), atol=1)
    assert counts[0] / counts[-1] == pytest.approx(10, rel=0.02)
    for part in (splits.val, splits.test):
        assert part.counts().max() - part.counts().min() <= 1


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 400), classes=st.integers(2, 12), tail=st.floats(1, 100))
def test_labels_keep_to_their_shares_at_every_length(count: int, classes: int, tail: float) -> None:
    shares = tail ** (-np.arange(classes) / (classes - 1))
    shares /= shares.sum()
    labels = _labels(count, classes, tail)
    assert len(labels) == count
    reached = (labels[:, None] == np.arange(classes)).cumsum(0)
    due = np.arange(1, count + 1)[:, None] * shares
    assert np.abs(reached - due).max() <= 1 + classes / 2
    np.testing.assert_array_equal(labels, _labels(count + 37, classes, tail)[:count])


def test_wrong_labels_are_in_training_only_and_as_many_as_asked() -> None:
    splits = shapes(SMALL, count=4000, classes=4, noise=0.3)
    wrong = splits.train.labels != splits.train.factors["clean_label"]
    assert abs(wrong.mean() - 0.3) < 4 * np.sqrt(0.21 / len(wrong))
    confusion = np.zeros((4, 4))
    np.add.at(confusion, (splits.train.factors["clean_label"][wrong], splits.train.labels[wrong]), 1)
    off = confusion[~np.eye(4, dtype=bool)]
    assert off.min() > 0.6 * off.mean()
    for part in (splits.val, splits.test):
        np.testing.assert_array_equal(part.labels, part.factors["clean_label"])


@pytest.mark.parametrize("kind", range(len(SHAPES)))
def test_masks_and_edges_are_those_of_the_shape(kind: int) -> None:
    count, size = 6, 40
    random = np.random.default_rng(kind).random((count, 18))
    zeros = np.zeros(count, dtype=np.int64)
    images, masks = draw(np.full(count, kind), zeros, zeros + 6, zeros + 5, random, size)
    for row in range(count):
        radius = 0.25 + 0.15 * random[row, 0]
        turn = 2 * np.pi * random[row, 1]
        centre = radius + (1 - 2 * radius) * random[row, 2:4]
        inside = 0.0
        for i in range(size):
            for j in range(size):
                x, y = ((j + 0.5) / size - centre[0]) / radius, ((i + 0.5) / size - centre[1]) / radius
                u, v = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
                distance = float(_SHAPES[kind][1](np.array([[[u]]]), np.array([[[v]]]))[0, 0, 0])
                if abs(distance) > 1e-5:
                    assert masks[row, i, j] == (distance < 0)
                inside += distance < 0
                if distance < 0:
                    assert np.hypot(x, y) < 1.02, "a shape fits its circle"
        assert inside == pytest.approx(masks[row].sum(), abs=1)
        # Well inside and outside, the colours are those of figure and ground: bright red, dull blue.
        reds, blues = images[row, :, :, 0].astype(int), images[row, :, :, 2].astype(int)
        assert (reds > blues)[masks[row]].mean() > 0.9
        assert (blues > reds)[~masks[row]].mean() > 0.9


def test_shapes_are_told_apart_and_so_are_textures() -> None:
    random = np.tile(np.random.default_rng(0).random((1, 18)), (12, 1))
    zeros = np.zeros(12, dtype=np.int64)
    _, masks = draw(np.arange(12), zeros, zeros, zeros, random, 64)
    for first in range(12):
        for second in range(first):
            union = (masks[first] | masks[second]).sum()
            assert (masks[first] ^ masks[second]).sum() > 0.05 * union  # hexagon and circle are the closest
    images, _ = draw(zeros[:8], zeros[:8], np.arange(8), zeros[:8], random[:8], 64)
    for first in range(8):
        for second in range(first):
            assert np.abs(images[first].astype(int) - images[second]).mean() > 3


@pytest.mark.parametrize(
    ("request_size", "options", "message"),
    [
        (8, {}, r"size must be in \[16, 256\], found 8"),
        (300, {}, "size"),
        (16, {"classes": 1}, "classes"),
        (16, {"classes": 13}, "classes must be in"),
        (16, {"correlation": 1.1}, "correlation"),
        (16, {"correlation": float("nan")}, "correlation"),
        (16, {"noise": 1.0}, "noise"),
        (16, {"tail": 0.5}, "tail"),
        (16, {"tail": float("inf")}, "tail"),
        (16, {"nuisance": "size"}, "nuisance"),
        (16, {"count": 20}, "leaves 2 images for val"),
        (16, {"count": 0}, "leaves 0 images"),
        (16, {"count": 600, "tail": 1e6}, r"for train, too few .* with tail"),
    ],
)
def test_options_out_of_range(request_size: int, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shapes(SourceRequest(size=request_size), **options)
