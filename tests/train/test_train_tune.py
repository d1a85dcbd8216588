"""Runs that begin at published weights, of which layers learn or do not: resumed, they end in the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from repertoire import backbones, recipe, train
from repertoire.data import ImageSet, Splits
from repertoire.train import _session

SPEC = "convnet:width=4,depth=3"


def images(count: int, seed: int) -> ImageSet:
    """Two classes that differ in brightness."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    pixels = generator.integers(0, 120, (count, 16, 16, 3)) + 100 * labels[:, None, None, None]
    keys = generator.integers(0, 2**62, count).astype(np.uint64)
    return ImageSet(pixels.astype(np.uint8), labels, [str(i) for i in range(count)], ("dark", "bright"), keys)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return Splits(images(48, 0), images(16, 1), images(16, 2), "drawn")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(backbones.ConvNet(in_channels=3, image_size=16, width=4, depth=3).state_dict(), path)
    return str(path)


@pytest.mark.parametrize("tune", ["head", "last:1", "all", "auto"])
def test_a_resumed_run_ends_in_the_same_weights(
    splits: Splits, weights: str, tune: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("REPERTOIRE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_session, "HEAD_EPOCHS", 2)
    wanted = recipe.make_config(
        data="drawn", backbone=SPEC, weights=weights, tune=tune, epochs=4, lr=0.01, batch_size=8
    )
    whole = train.fit(config=wanted, splits=splits, out=tmp_path / "whole")

    class Stopped(Exception):
        pass

    original = train.Loop._finish_epoch

    def stop(self: train.Loop, *args: object) -> None:
        original(self, *args)
        if self.directory is not None and self.progress.epoch == 2:
            raise Stopped

    monkeypatch.setattr(train.Loop, "_finish_epoch", stop)
    with pytest.raises(Stopped):
        train.fit(config=wanted, splits=splits, out=tmp_path / "cut")
    monkeypatch.setattr(train.Loop, "_finish_epoch", original)
    resumed = train.resume(tmp_path / "cut", splits=splits)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert resumed.metrics["accuracy"] == whole.metrics["accuracy"]
    # The run predicts from images, whatever it was trained on.
    logits = whole.model(torch.rand(2, 3, 16, 16))
    assert logits.shape == (2, 2)
