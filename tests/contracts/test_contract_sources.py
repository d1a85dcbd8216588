"""What every data source must do that needs nothing from elsewhere, or finds its data where a test has put it."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repertoire import data
from repertoire.data import SourceRequest
from repertoire.testing import check_source

LABELS = np.arange(60) % 3


def images() -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 12, 12, 3), dtype=np.uint8)
    pixels[..., 0] = (40 * LABELS)[:, None, None]
    return pixels


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, an archive of images, one of features, a table, and a shard."""
    root = tmp_path_factory.mktemp("sources")
    for number, (pixels, label) in enumerate(zip(images(), LABELS, strict=True)):
        file = root / "photos" / "abc"[label] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    np.savez(root / "images.npz", images=images(), labels=LABELS)
    np.savez(root / "features.npz", features=images().reshape(60, -1)[:, :7].astype(np.float32), labels=LABELS)
    with tarfile.open(root / "shard.tar", "w") as tar:
        for number, label in enumerate(LABELS):
            (root / "label").write_text("abc"[label])
            tar.add(root / "photos" / "abc"[label] / f"{number}.png", f"{number}.png")
            tar.add(root / "label", f"{number}.cls")
    rows = [f"{'abc'[label]}/{number}.png,{'abc'[label]}" for number, label in enumerate(LABELS)]
    (root / "photos" / "table.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    return root


#: Where a source finds its data below the folder; None for one that has its own.
PATHS = {
    "digits": None,
    "shapes": None,
    "folder": "photos",
    "npz": "images.npz",
    "features": "features.npz",
    "table": "photos/table.csv",
    "wds": "shard.tar",
}
OPTIONS = {"shapes": {"count": 90}}
CHECKS = [str(check) for check in check_source(data.digits)]


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("wanted", CHECKS)
def test_keeps_its_contract(name: str, wanted: str, root: Path):
    source, options = getattr(data, name), dict(OPTIONS.get(name, {}))
    if PATHS[name] is not None:
        options["path"] = root / PATHS[name]
    request = SourceRequest(workers=1, cache_dir=root / "cache")
    (check,) = (one for one in check_source(source, request=request, **options) if str(one) == wanted)
    check()
