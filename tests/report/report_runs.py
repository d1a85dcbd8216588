"""Small runs that are really trained, for the tests of the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repertoire.train import Run, fit

HOSTILE = ("<script>alert(1)</script>", "a \"quoted\" & 'long' name, which goes on and on and on", "Ünïcode\n猫")


def write_data(path: Path, classes: Sequence[str], per_class: int, *, size: int = 8, channels: int = 1) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(classes)), per_class)
    prototypes = rng.integers(0, 256, (len(classes), size, size, channels))
    noise = rng.normal(0, 60, (len(labels), size, size, channels))
    images = (prototypes[labels] + noise).clip(0, 255).astype(np.uint8)
    np.savez(path, images=images, labels=labels, classes=np.array(classes))


def train(root: Path, classes: Sequence[str], per_class: int = 10, **fields: Any) -> Run:
    path = root / "data.npz"
    write_data(path, classes, per_class)
    return fit(path, out=root / "run", **{"epochs": 1, "backbone": "convnet", "batch_size": 64, **fields})
