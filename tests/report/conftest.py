"""Runs to report on: small ones that were really trained, changed by hand where a test needs another state."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repertoire.report import write_report
from repertoire.train import Run, fit

HOSTILE = ("<script>alert(1)</script>", "a \"quoted\" & 'long' name, which goes on and on and on", "Ünïcode\n猫")


def write_data(path: Path, classes: Sequence[str], per_class: int, *, size: int = 8, channels: int = 1) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(classes)), per_class)
    prototypes = rng.integers(0, 256, (len(classes), size, size, channels))
    noise = rng.normal(0, 60, (len(labels), size, size, channels))
    images = (prototypes[labels] + noise).clip(0, 255).astype(np.uint8)
    np.savez(path, images=images, labels=labels, classes=np.array(classes))


def train(root: Path, classes: Sequence[str], per_class: int = 10, *, epochs: int = 1, **data: int) -> Run:
    path = root / "data.npz"
    write_data(path, classes, per_class, **data)
    return fit(path, out=root / "run", epochs=epochs, backbone="convnet", batch_size=64)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of three classes with names that are markup, long, or of more than one line."""
    return train(tmp_path_factory.mktemp("hostile"), HOSTILE, 40, epochs=2)


@pytest.fixture(scope="session")
def page(hostile: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of that run."""
    return write_report(hostile, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture
def copy(hostile: Run, tmp_path: Path) -> Path:
    """A directory with a copy of that run, to be damaged; its data lies beside it."""
    shutil.copytree(hostile.path, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def edit() -> Callable[..., None]:
    """Changes fields of a JSON file."""

    def change(path: Path, **fields: Any) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return change
