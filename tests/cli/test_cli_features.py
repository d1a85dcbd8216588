"""Commands on a run that was trained on features: what takes a file of them, and what says that it wants pictures."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import repertoire
from repertoire.cli import main
from repertoire.data import load_feature_set
from repertoire.errors import DataError, RunError, ShapeError
from repertoire.train import Run

RNG = np.random.default_rng(0)
LABELS = np.arange(120) % 3
ROWS = (RNG.normal(size=(120, 8)) + 4 * LABELS[:, None]).astype(np.float32)
NAMES = np.array(["ape", "bee", "cat"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("features")
    np.savez(root / "train.npz", features=ROWS, labels=NAMES[LABELS])
    named = [f"row {i}" for i in range(9)]
    np.savez(root / "new.npz", features=ROWS[:9], names=named)
    # The same classes in another order, and one row without a label.
    told = np.where(np.arange(9) == 4, -1, 2 - LABELS[:9])
    np.savez(root / "known.npz", features=ROWS[:9], labels=told, classes=NAMES[::-1], names=named)
    save_file({"features": ROWS[:9]}, root / "new.safetensors")
    np.savez(root / "wide.npz", features=np.ones((3, 9), np.float32))
    return root


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return repertoire.fit(folder / "train.npz", out=folder / "run", epochs=20, device="cpu")


def said(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments), *(["--device", "cpu"] if arguments[0] in ("predict", "embed", "evaluate") else [])])
    found = capsys.readouterr()
    return int(stop.value.code or 0), found.out, found.err


@pytest.mark.parametrize("name", ["new.npz", "new.safetensors"])
def test_predict_takes_a_file(run: Run, folder: Path, capsys: pytest.CaptureFixture, name: str):
    code, out, _ = said(capsys, "predict", run.path, folder / name, "--format", "csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    expected = run.predict(ROWS[:9])
    assert [row["class"] for row in rows] == [str(NAMES[k]) for k in expected.argmax(1)]
    np.testing.assert_allclose([float(row["probability"]) for row in rows], expected.max(1), atol=1e-6)
    assert rows[3]["image"] == ("row 3" if name == "new.npz" else "3")


def test_true_classes_stand_beside_the_answers(run: Run, folder: Path, capsys: pytest.CaptureFixture):
    code, out, err = said(capsys, "predict", run.path, folder / "known.npz", "--format", "json")
    assert code == 0
    assert [row["true"] for row in json.loads(out)] == ["ape", "bee", "cat", "ape", "", "cat", "ape", "bee", "cat"]
    assert "on 8 labelled vectors" in err


def test_embed_and_evaluate_take_it_too(run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    code, _, _ = said(capsys, "embed", run.path, folder / "known.npz", "-o", tmp_path / "out.npz")
    assert code == 0
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_allclose(found["features"], run.embed(ROWS[:9]), atol=1e-6)
        assert found["names"].tolist() == [f"row {i}" for i in range(9)]
        assert found["labels"].tolist() == [0, 1, 2, 0, -1, 2, 0, 1, 2]
        assert found["classes"].tolist() == NAMES.tolist()
    code, out, _ = said(capsys, "evaluate", run.path, folder / "known.npz", "-o", tmp_path / "metrics.json")
    assert code == 0
    assert "on 8 vectors" in out
    assert out.split("\n")[0].split()[:2] == ["class", "vectors"]
    assert "image" not in out
    assert run.evaluate(folder / "known.npz")["images"] == 8
    code, out, _ = said(capsys, "evaluate", run.path, folder / "known.npz", "--probe", "knn", "-o", tmp_path / "p.json")
    assert code == 0
    assert "training vectors" in out


def test_a_large_file_is_read_a_batch_at_a_time(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = np.tile(ROWS, (5000, 1))  # 19 MB: mapped, not read
    np.savez(tmp_path / "large.npz", features=rows)
    held = load_feature_set(tmp_path / "large.npz")
    assert isinstance(held.features, np.memmap)
    batches = [len(answers.index) for answers in run.stream(held.subset(np.arange(1000)), batch_size=256)]
    assert batches == [256, 256, 256, 232]
    np.testing.assert_allclose(
        run.predict(tmp_path / "large.npz", batch_size=100_000)[:120], run.predict(ROWS), atol=1e-6
    )


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("explain", "RUN", "new.npz"), "cannot explain with .*trained on features, which are no pictures"),
        (("diagnose", "RUN"), "cannot diagnose with .*trained on features"),
        (("predict", "RUN", "new.npz", "known.npz"), "name one file of them, .npz or .safetensors, found 2"),
        (("predict", "RUN", "wide.npz"), r"trained on features \[N, 8\], found \[3, 9\]"),
        (("predict", "RUN", "missing.npz"), "there is no file .*missing.npz"),
    ],
)
def test_what_is_refused(run: Run, folder: Path, capsys: pytest.CaptureFixture, command: tuple[str, ...], words: str):
    arguments = [run.path if word == "RUN" else folder / word if "." in word else word for word in command]
    code, out, err = said(capsys, *arguments)
    assert code == 2
    assert not out
    assert err.count("\n") == 1
    assert re.search(words, err), err


def test_classes_that_the_run_does_not_know(run: Run, folder: Path):
    np.savez(folder / "other.npz", features=ROWS[:3], labels=["ape", "bea", "cat"])
    with pytest.raises(DataError, match="has the classes bea, which the model does not know; did you mean bee"):
        run.evaluate(folder / "other.npz")
    with pytest.raises(ShapeError, match=r"found \[2, 5\]|float \[N, 8\]"):
        run.predict(np.zeros((2, 5), np.float32))
    with pytest.raises(RunError, match="no pictures"):
        run.explain(ROWS[:2])


def test_what_comes_next_can_be_typed(run: Run, folder: Path, capsys: pytest.CaptureFixture):
    code, out, _ = said(capsys, "train", "--resume", run.path, "--no-report", "-q")
    assert code == 0
    assert f"try next: repertoire evaluate {run.path}   |   repertoire predict {run.path} FEATURES.npz" in out
    assert "vectors), weights of epoch" in out


def test_training_ends_with_a_report(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    code, out, _ = said(capsys, "train", folder / "train.npz", "--epochs", 1, "-q", "-o", tmp_path / "run")
    assert code == 0
    assert "test accuracy" in out
    assert "The run was trained on features, which are no pictures." in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("format", ["torchscript", "onnx", "pt2"])
def test_export_says_that_it_takes_vectors(run: Run, tmp_path: Path, format: str):
    if format == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    target = run.export(format, tmp_path / "model")  # type: ignore[arg-type]
    about = json.loads((tmp_path / "model.json").read_text())
    assert about["input"] == {"name": "features", "dtype": "float32", "shape": ["batch", 8]}
    assert "preprocessing" not in about
    if format == "torchscript":
        np.testing.assert_allclose(
            torch.jit.load(target)(torch.from_numpy(ROWS)).detach().numpy(), run.predict(ROWS), atol=1e-5
        )


def test_select_chooses_rows(run: Run, folder: Path, capsys: pytest.CaptureFixture):
    code, out, _ = said(capsys, "select", run.path, folder / "new.npz", "--budget", 3, "--selector", "coreset")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 3
    assert all(row["image"].startswith("row ") for row in rows)
