"""Features of images of known classes, and of those that nobody labelled."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from repertoire.recipe import build_backbone, embed_data, make_config


def test_images_without_a_label_are_a_part_of_their_own(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(24):
        place = tmp_path / "known" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(place)
    pool = tmp_path / "pool" / "somewhere"
    pool.mkdir(parents=True)
    for number in range(5):
        Image.fromarray(generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(pool / f"{number}.png")
    torch.manual_seed(0)
    network = "convnet:width=4,depth=2"
    save_file(build_backbone(network, 3, 16).state_dict(), tmp_path / "w.safetensors")
    fields = {"backbone": network, "weights": str(tmp_path / "w.safetensors"), "size": 16, "device": "cpu"}
    config = make_config(data=str(tmp_path / "known"), unlabelled=str(tmp_path / "pool"), **fields)
    count, width = embed_data(config, tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as found:
        assert found["features"].shape == (count, width) == (29, width)
        without = found["split"] == "unlabelled"
        assert sorted(found["names"][without]) == [f"somewhere/{number}.png" for number in range(5)]
        assert (found["labels"][without] == -1).all()
        assert (found["labels"][~without] >= 0).all()
