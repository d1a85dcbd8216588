"""Classes that are only described, or only near others, as typed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import run_cli
from repertoire import train

COLOURS, SHAPES = ("red", "green", "blue", "grey"), ("disc", "box", "star")
NAMES = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]


@pytest.fixture
def described(tmp_path: Path) -> tuple[Path, Path]:
    """Features of ten of twelve classes, and what all twelve are like."""
    generator = np.random.default_rng(0)
    values = np.array(
        [[*(c == colour for c in COLOURS), *(s == shape for s in SHAPES)] for colour in COLOURS for shape in SHAPES]
    )
    lines = [",".join(["class", *COLOURS, *SHAPES])]
    lines += [",".join([name, *map(str, row.astype(int))]) for name, row in zip(NAMES, values, strict=True)]
    (tmp_path / "attributes.csv").write_text("\n".join(lines) + "\n")
    turn = generator.normal(size=(7, 10))
    labels = np.repeat(np.arange(10), 12)
    X = (values[labels] @ turn + 0.2 * generator.normal(size=(120, 10))).astype(np.float32)
    np.savez(tmp_path / "f.npz", features=X, labels=labels, classes=NAMES[:10])
    np.savez(tmp_path / "new.npz", features=(values[[11, 10, 0]] @ turn).astype(np.float32), names=["a", "b", "c"])
    return tmp_path / "f.npz", tmp_path / "attributes.csv"


def test_classes_without_a_row_are_predicted_by_what_they_are_like(described, tmp_path: Path, capsys):
    features, attributes = described
    status, out, err = run_cli(
        capsys, "fit-features", features, "--attributes", attributes, "--out", tmp_path / "a",
        "--predict", tmp_path / "new.npz",
    )  # fmt: skip
    assert status == 0, err
    assert "held out to measure" in out
    assert "harmonic mean" in out
    rows = list(csv.DictReader((tmp_path / "a" / "predictions.csv").open()))
    assert [row["class"] for row in rows] == ["grey star", "grey box", "red disc"]
    assert [row["seen"] for row in rows] == ["no", "no", "yes"]
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert len(metrics["unseen_classes"]) == 2
    assert metrics["among_unseen"] > 0.9
    assert 0.6 < metrics["ausuc"] <= 1
    # Kept with the names of its classes.
    status, out, err = run_cli(
        capsys, "fit-features", tmp_path / "new.npz", "--fitted", tmp_path / "a", "--out", tmp_path / "b"
    )
    assert status == 0, err
    assert (tmp_path / "b" / "predictions.csv").read_text() == (tmp_path / "a" / "predictions.csv").read_text()


def test_the_classes_held_out_may_be_named(described, tmp_path: Path, capsys):
    features, attributes = described
    status, out, err = run_cli(
        capsys, "fit-features", features, "--attributes", attributes, "--estimator", "cosmo:folds=2",
        "--unseen", "red disc,blue star", "--out", tmp_path / "a",
    )  # fmt: skip
    assert status == 0, err
    assert "2 of 12 (red disc, blue star)" in out
    assert "give up" not in out, "a gate weighs both worlds by itself"


def test_what_does_not_fit_is_refused_before_anything_is_written(described, tmp_path: Path, capsys):
    features, attributes = described
    given = ["fit-features", features, "--out", tmp_path / "a"]
    for more, words in (
        (["--attributes", attributes, "--estimator", "ezsl"], "did you mean 'eszsl'"),
        (["--attributes", attributes, "--estimator", "nearest-centroid"], "learns from rows alone"),
        (["--estimator", "eszsl"], "give --attributes FILE"),
        (["--unseen", "red disc"], "give --attributes FILE"),
        (["--attributes", attributes, "--unseen", "red disk"], "did you mean 'red disc'"),
        (["--attributes", attributes, "--estimator", "eszsl:ridge=0"], "ridge must be positive"),
        (["--attributes", tmp_path / "none.csv"], "cannot be read"),
    ):
        status, _, err = run_cli(capsys, *given, *more)
        assert status != 0
        assert words in err
        assert not (tmp_path / "a").exists()
    attributes.write_text("class,red\nred disk,1\n")
    status, _, err = run_cli(capsys, *given, "--attributes", attributes)
    assert status != 0
    assert "does not describe 'red disc'; did you mean 'red disk' there?" in err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> train.Run:
    """Pictures that are dark or bright, with nothing between them."""
    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for name, light in (("dark", 20), ("bright", 200)):
        (root / name).mkdir()
        for i in range(12):
            pixels = (light + generator.integers(0, 30, (16, 16, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02}.png")
    options = {"size": 16, "epochs": 3, "backbone": "convnet:width=4,depth=2", "device": "cpu", "seed": 0}
    return train.fit(root, out=root.parent / "run", **options)


def test_a_class_between_others_is_an_answer(run: train.Run, tmp_path: Path, capsys):
    image = tmp_path / "x.png"
    Image.fromarray(np.full((16, 16, 3), 110, np.uint8)).save(image)
    table = tmp_path / "tree.csv"
    table.write_text("class,bright,dark\nbright,0,2\ndark,2,0\ndim,1,1\n")
    p = float(run.predict_proba([image])[0].max()) if hasattr(run, "predict_proba") else None
    status, out, err = run_cli(
        capsys, "predict", run.directory, image, "--classes", table, "--format", "json", "--top", 3
    )
    assert status == 0, err
    found = json.loads(out)[0]["top"]
    assert {answer["class"] for answer in found} == {"bright", "dark", "dim"}
    away = {answer["class"]: answer["distance"] for answer in found}
    assert away["dim"] == pytest.approx(1.0)
    assert away["bright"] ** 2 + away["dark"] ** 2 == pytest.approx(4.0, abs=1e-4)
    if p is not None:
        assert min(away["bright"], away["dark"]) == pytest.approx(2 * (1 - p) ** 0.5, abs=1e-4)
    status, out, err = run_cli(
        capsys, "predict", run.directory, image, "--classes", table, "--rule", "frechet", "--format", "csv"
    )
    assert status == 0, err
    assert out.splitlines()[0] == "image,rank,class,distance"
    status, out, _ = run_cli(capsys, "predict", run.directory, image, "--classes", table)
    assert "(distance " in out


def test_a_table_that_does_not_know_the_run_is_refused(run: train.Run, tmp_path: Path, capsys):
    table = tmp_path / "tree.csv"
    table.write_text("class,parent\ndark,light\nbrigth,light\n")
    for arguments, words in (
        (["--classes", table], "no class 'bright', which the run was trained on; did you mean 'brigth'"),
        (["--rule", "frechet"], "needs --classes FILE"),
        (["--classes", table, "--reject", 0.9], "leave one out"),
        (["--classes", table, "--rule", "frechett"], "frechet"),
    ):
        status, _, err = run_cli(capsys, "predict", run.directory, "x.png", *arguments)
        assert status != 0
        assert words in err
