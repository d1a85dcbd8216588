"""What a run on photographs does where the user says nothing: a pretrained start, at its size, with its constants."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repertoire.backbones import lite0
from repertoire.data import ImageSet, Splits, load
from repertoire.recipe import build, load_splits, make_config, resolve
from repertoire.recipe._resolve import STEPS


def photographs(count: int = 60, size: int = 160, channels: int = 3) -> Splits:
    """A set of pictures that come from files, all of them dark, at no price in memory."""
    pixels = np.broadcast_to(np.uint8(20), (count, size, size, channels))
    numbers = np.arange(count)
    images = ImageSet(pixels, numbers % 2, [f"{i}.jpg" for i in numbers], ("cat", "dog"), numbers.astype(np.uint64))
    return Splits(images, images, images, "photos")


def resolved(splits: Splits, folder: Path, **fields: object):
    return resolve(make_config(data=str(folder), device="cpu", **fields), splits)


@pytest.mark.parametrize(
    ("size", "count", "backbone"),
    [(160, 60, "lite0"), (160, 20_000, "lite0"), (32, 60, "lite0"), (32, 20_000, "resnet20"), (16, 60, "convnet")],
)
def test_large_or_few_photographs_start_from_a_pretrained_network(size: int, count: int, backbone: str, tmp_path: Path):
    splits = photographs(count, size)
    assert resolved(splits, tmp_path).backbone == backbone
    assert resolved(splits, tmp_path, from_scratch=True).backbone.startswith(("convnet", "resnet20"))
    assert resolved(photographs(count, size, 1), tmp_path).backbone != "lite0"


def test_pretrained_weights_learn_at_a_rate_that_does_not_destroy_them(tmp_path: Path):
    start, fresh = (resolved(photographs(), tmp_path, from_scratch=scratch) for scratch in (False, True))
    assert (start.optimizer, fresh.optimizer) == ("adamw", "sgd")
    assert start.lr < 1e-3
    assert resolved(photographs(), tmp_path, optimizer="sgd", from_scratch=False).lr <= 0.01


@pytest.mark.parametrize("scratch", [False, True])
@pytest.mark.parametrize("count", [40, 270, 3000])
def test_a_small_set_is_stepped_through_often_enough(count: int, scratch: bool, tmp_path: Path):
    config = resolved(photographs(count, 32), tmp_path, from_scratch=scratch)
    steps = math.ceil(count / config.batch_size)
    assert STEPS == 200
    assert config.batch_size >= 8
    assert steps * config.epochs >= STEPS
    if count >= 8 * 16:
        assert steps >= 16
    # Who says how long gets what was said.
    assert resolved(photographs(count, 32), tmp_path, epochs=3).epochs == 3


@pytest.mark.parametrize(
    ("fields", "size"),
    [({}, 160), ({"backbone": "lite0"}, 160), ({"size": 48}, 48), ({"from_scratch": True}, 128),
     ({"backbone": "resnet20"}, 128)],
)  # fmt: skip
def test_photographs_come_at_the_size_of_their_network(fields: dict[str, object], size: int, tmp_path: Path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.new("RGB", (300, 260), (10 * i, 90, 50)).save(tmp_path / name / f"{i}.png")
    splits = load_splits(make_config(data=str(tmp_path), device="cpu", **fields), shapes=True)
    assert splits.train.size == (size, size)


def test_a_pretrained_network_keeps_the_constants_that_it_was_trained_with(tmp_path: Path):
    splits = photographs(20, 32)
    preset = lite0(pretrained=True).preset
    model = build(resolved(splits, tmp_path), splits).method.model
    np.testing.assert_allclose(model.normalize.mean.flatten(), preset.mean, rtol=1e-6)
    np.testing.assert_allclose(model.normalize.std.flatten(), preset.std, rtol=1e-6)
    # A network from scratch takes those of the pictures, which are as dark as it gets.
    fresh = build(resolved(splits, tmp_path, from_scratch=True), splits).method.model
    np.testing.assert_allclose(fresh.normalize.mean.flatten(), 20 / 255, rtol=1e-4)


def test_what_is_drawn_in_numbers_is_no_photograph():
    splits = load("digits")
    assert resolve(make_config(data="digits", device="cpu"), splits).backbone == "convnet"
