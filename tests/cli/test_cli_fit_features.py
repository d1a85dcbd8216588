"""`repertoire fit-features`, as typed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from commands import run_cli
from repertoire import estimators


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """Three well separated classes, and rows without a label."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    X = (4 * np.eye(3, 8)[labels] + 0.3 * rng.normal(size=(90, 8))).astype(np.float32)
    np.savez(tmp_path / "f.npz", features=X, labels=np.where(np.arange(90) < 84, labels, -1), classes=["a", "b", "c"])
    return tmp_path / "f.npz"


def test_fits_scores_keeps_and_predicts(features: Path, tmp_path: Path, capsys):
    new = {"features": 4 * np.eye(3, 8, dtype=np.float32)[[2, 0]]}
    np.savez(tmp_path / "new.npz", **new, names=["x,1.jpg", "y.jpg"])
    status, out, err = run_cli(
        capsys, "fit-features", features, "--estimator", "nearest-centroid", "--out", tmp_path / "a",
        "--predict", tmp_path / "new.npz",
    )  # fmt: skip
    assert status == 0, err
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["accuracy"] == 1.0
    low, high = metrics["accuracy_interval"]
    assert 0 < low < high == 1
    assert "test accuracy 100.0%" in out
    rows = list(csv.DictReader((tmp_path / "a" / "predictions.csv").open()))
    assert [(row["name"], row["class"]) for row in rows] == [("x,1.jpg", "c"), ("y.jpg", "a")]
    assert all(0 <= float(row["probability"]) <= 1 for row in rows)
    assert list(estimators.load_estimator(tmp_path / "a").predict(new["features"])) == ["c", "a"]
    save_file(new, tmp_path / "new.safetensors")
    status, _, err = run_cli(
        capsys, "fit-features", tmp_path / "new.safetensors", "--fitted", tmp_path / "a", "--out", tmp_path / "b"
    )
    assert status == 0, err
    rows = list(csv.DictReader((tmp_path / "b" / "predictions.csv").open()))
    assert [(row["name"], row["class"]) for row in rows] == [("0", "c"), ("1", "a")]


def test_numbers_get_a_regressor_and_an_interval(tmp_path: Path, capsys):
    X = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
    np.savez(tmp_path / "n.npz", features=X, labels=(X @ [3.0, 1.0, 0.0, 0.0]).astype(np.float32)[:, None])
    arguments = ("fit-features", tmp_path / "n.npz", "--out", tmp_path / "a", "--estimator")
    status, _, err = run_cli(capsys, *arguments, "nearest-centroid")
    assert status == 2
    assert "nearest-centroid does not predict numbers" in err
    assert "gb-nn-regressor" in err
    assert not (tmp_path / "a").exists()
    status, out, err = run_cli(capsys, *arguments, "gb-nn-regressor:n_stages=20")
    assert status == 0, err
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["r2"] > 0.8
    low, high = metrics["mae_interval"]
    assert 0 < low < metrics["mae"] < high
    assert "R2" in out


def test_what_is_there_stays(features: Path, tmp_path: Path, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("mine")
    status, _, err = run_cli(capsys, "fit-features", features, "--out", tmp_path / "a")
    assert status == 2
    assert "exists already" in err
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"features": np.ones((3, 5), np.float32)}, "fitted to finite floats [N, 8]"),
        ({"features": np.full((3, 8), np.nan, np.float32)}, "finite"),
        ({"features": np.ones((3, 8), np.int64)}, "int64"),
        ({"vectors": np.ones((3, 8))}, "no array called features"),
        ({"features": np.array([[object()] * 8] * 3)}, "cannot be read"),
    ],
)
def test_files_that_cannot_be_predicted(features: Path, tmp_path: Path, capsys, arrays, said):
    run_cli(capsys, "fit-features", features, "--out", tmp_path / "a")
    np.savez(tmp_path / "bad.npz", **arrays)
    status, _, err = run_cli(
        capsys, "fit-features", tmp_path / "bad.npz", "--fitted", tmp_path / "a", "--out", tmp_path / "b"
    )
    assert status == 2
    assert said in err
    assert not (tmp_path / "b").exists()


def test_rows_without_a_label_are_learned_from_where_an_estimator_can(tmp_path: Path, capsys):
    rng = np.random.default_rng(0)
    true = np.arange(200) % 2
    X = rng.normal(size=(200, 5)).astype(np.float32)
    X[:, 0] += 8 * true - 4
    np.savez(tmp_path / "f.npz", features=X, labels=np.where(np.arange(200) < 40, true, -1))
    said = {}
    for name in ("low-density", "frozen-embedding"):
        status, said[name], err = run_cli(
            capsys, "fit-features", tmp_path / "f.npz", "--estimator", name, "--out", tmp_path / name
        )
        assert status == 0, err
    assert "on 8 rows, fitted to 192;" in said["low-density"]
    assert "on 8 rows, fitted to 32;" in said["frozen-embedding"]
    assert "test accuracy 100.0%" in said["low-density"]
