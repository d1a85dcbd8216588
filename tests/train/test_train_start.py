"""Starting from a run whose images had other channels, or that had no images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from repertoire import backbones, fit, load, recipe
from repertoire.data import from_memory
from repertoire.errors import ConfigError, RunError
from repertoire.train import Run

LABELS = np.arange(60) % 3
GREY = (
    np.random.default_rng(0).integers(0, 120, (60, 8, 8, 1), dtype=np.uint8)
    + (40 * LABELS[:, None, None, None]).astype(np.uint8)
)  # fmt: skip
COLOURED = np.repeat(GREY, 3, axis=3)
"""The same pictures: what is adapted should say the same of them."""


def run(images: np.ndarray, path: Path, **fields: object) -> Run:
    return fit((images, LABELS), out=path, epochs=2, device="cpu", **fields)


@pytest.mark.parametrize(
    "backbone", ["convnet:width=8,depth=2", "resnet20:width=4", "vit:dim=16,depth=1,heads=2,patch=4"]
)
@pytest.mark.parametrize("first", ["coloured", "grey"])
def test_a_start_with_other_channels_says_the_same_of_grey_pictures(backbone: str, first: str, tmp_path: Path):
    before, after = (COLOURED, GREY) if first == "coloured" else (GREY, COLOURED)
    run(before, tmp_path / "a", backbone=backbone)
    config = recipe.make_config(data=recipe.IN_MEMORY, start=str(tmp_path / "a"), epochs=1, device="cpu")
    splits = from_memory(after, LABELS)
    built = recipe.build(recipe.resolve(config, splits), splits)
    assert built.record["weights"]["matched"] == built.record["weights"]["total"]
    assert built.record["weights"]["adapted"]
    model = built.method.model.eval()
    with torch.no_grad():
        found = model(torch.from_numpy(after).permute(0, 3, 1, 2).float() / 255).softmax(1)
    expected = load(tmp_path / "a").predict(before)
    # Constants of the normalisation are kept to six digits.
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_such_a_run_is_trained_and_opened(tmp_path: Path):
    run(COLOURED, tmp_path / "a", backbone="convnet:width=8,depth=2")
    again = run(GREY, tmp_path / "b", start=str(tmp_path / "a"))
    assert again.model.normalize.mean.shape[1] == 1
    assert load(tmp_path / "b").predict(GREY[:4]).shape == (4, 3)


def test_a_run_on_features_is_no_start_for_images(tmp_path: Path):
    rows = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    fit((rows, LABELS), out=tmp_path / "a", epochs=1, device="cpu")
    with pytest.raises(ConfigError, match="features"):
        run(GREY, tmp_path / "b", start=str(tmp_path / "a"))
    run(GREY, tmp_path / "c", backbone="convnet:width=8,depth=2")
    with pytest.raises(ConfigError, match="features"):
        fit((rows, LABELS), out=tmp_path / "d", epochs=1, device="cpu", start=str(tmp_path / "c"))
    assert not (tmp_path / "b").exists()
    assert not (tmp_path / "d").exists()


def test_a_run_can_be_started_from_while_its_layout_is_known(tmp_path: Path):
    """The room of backbones, which reads weights out of runs, knows the number of the layout that is written here."""
    run(GREY, tmp_path / "a", backbone="convnet:width=4,depth=2")
    file = tmp_path / "a" / "run.json"
    info = json.loads(file.read_text())
    start = str(tmp_path / "a")
    net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    assert backbones.load_weights(net, start).source
    file.write_text(json.dumps({**info, "format": info["format"] + 1}))
    with pytest.raises(RunError, match="newer version"):
        backbones.load_weights(net, start)
