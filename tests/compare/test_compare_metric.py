"""Each kind of targets is ranked by a metric of its own, and by no other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from repertoire.compare import compare
from repertoire.compare._metric import METRICS
from repertoire.errors import ConfigError

MAPS = "shapes:count=40,classes=2,targets=maps"


def test_maps_are_ranked_by_the_mean_iou_of_their_runs(tmp_path: Path):
    shared = {"backbone": "convnet:width=4,depth=2", "size": 16, "batch_size": 8, "epochs": 1, "device": "cpu"}
    found = compare(MAPS, vary={"lr": [0.05, 1e-6]}, metric="miou", seeds=2, jobs=1, out=tmp_path / "a", **shared)
    assert found.metric is METRICS["miou"]
    for row in found.table:
        stored = [json.loads((run.path / "metrics.json").read_text())["miou"] for run in row.runs]
        assert row.values == pytest.approx(stored)
        assert row.mean == pytest.approx(np.mean(stored))
    differences = np.subtract(found.row("lr=1e-06").values, found.row("lr=0.05").values)
    assert found.row("lr=1e-06").difference == pytest.approx(differences.mean())
    assert found.row("lr=1e-06").verdict == "worse"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "metric 'accuracy' is for targets of kind 'classes' or 'votes', .* are 'maps': choose miou or nll"),
        ({"metric": "miou", "search": {"momentum": "0.5..0.9"}}, "a search judges its trials by validation accuracy"),
    ],
)
def test_what_does_not_fit_maps_is_refused_before_anything_is_run(options: dict, words: str, tmp_path: Path):
    shared = {"backbone": "convnet:width=4,depth=2", "size": 16, "epochs": 1, "device": "cpu"}
    with pytest.raises(ConfigError, match=words):
        compare(MAPS, vary={"lr": [0.05, 1e-6]}, seeds=1, jobs=1, out=tmp_path / "a", **shared, **options)
    assert not (tmp_path / "a").exists()


def test_the_mean_iou_is_none_of_classes(tiny: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="choose accuracy or balanced_accuracy or macro_f1 or nll or ece"):
        compare(tiny, vary={"lr": [0.05, 0.1]}, seeds=1, jobs=1, out=tmp_path / "a", metric="miou", epochs=1)


@pytest.mark.parametrize(
    ("header", "values", "metric"),
    [("path,age\n", "{n}", "mae"), ("path,sky,sea\n", "{a},{b}", "mean_average_precision")],
)
def test_numbers_and_several_labels_have_a_metric_too(header: str, values: str, metric: str, tmp_path: Path):
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    rows = [f"{n}.png,{values.format(n=n, a=n % 2, b=n // 2 % 2)}\n" for n in range(48)]
    for n in range(48):
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{n}.png")
    (folder / "labels.csv").write_text(header + "".join(rows))
    shared = {"backbone": "convnet:width=4,depth=1", "size": 8, "batch_size": 8, "epochs": 1, "device": "cpu"}
    found = compare(folder, vary={"lr": [0.05, 0.1]}, metric=metric, seeds=1, jobs=1, out=tmp_path / "a", **shared)
    assert not found.failures
    assert all(len(row.values) == 1 for row in found.table)
    for row in found.table:
        (run,) = row.runs
        assert row.values[0] == json.loads((run.path / "metrics.json").read_text())[metric]
