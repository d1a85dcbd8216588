"""Runs from starts of their own, merged by matching their units, at the width that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from repertoire import train

OPTIONS = {"device": "cpu", "batch_size": 32, "epochs": 12, "augment": "none", "quiet": True}
PARTS = {"train": 60, "val": 20, "test": 40}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Folders of fixed parts: all digits, those below five, and the others."""
    root = tmp_path_factory.mktemp("digits")
    pixels, labels = load_digits(return_X_y=True)
    for k in range(10):
        rows = pixels[labels == k].reshape(-1, 8, 8) * 15
        start = 0
        for part, count in PARTS.items():
            for whole in ("all", "low" if k < 5 else "high"):
                (root / whole / part / str(k)).mkdir(parents=True, exist_ok=True)
            for i in range(start, start + count):
                image = Image.fromarray(rows[i].astype(np.uint8))
                for whole in ("all", "low" if k < 5 else "high"):
                    image.save(root / whole / part / str(k) / f"{i}.png")
            start += count
    return root


def test_runs_of_other_classes_are_one_network_of_any_width(digits, tmp_path):
    runs = [
        train.fit(str(digits / name), out=tmp_path / name, backbone="convnet:width=8,depth=2", seed=seed, **OPTIONS)
        for seed, name in enumerate(("low", "high"))
    ]
    paths = [run.path for run in runs]
    for width in (1, 2):
        operator = f"permute-least-squares:width={width}"
        merged = train.merge(paths, tmp_path / f"merged-{width}", operator=operator, data=str(digits / "all"))
        again = train.load(merged.path)
        assert again.model.backbone.out_features == round(width * 16)
        assert again.evaluate()["accuracy"] == merged.metrics["accuracy"]
        assert len(again.classes) == 10
        parts = merged.info["merged"]["parts"]
        assert [part["alone"] > 0.7 for part in parts] == [True, True]
        if width == 2:  # both networks side by side, each with its own head
            for part in parts:
                assert part["merged"] == pytest.approx(part["alone"], abs=0.05)
