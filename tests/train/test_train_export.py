from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from repertoire import train
from repertoire.errors import ConfigError, RunError
from repertoire.train import _export


@pytest.fixture(scope="module")
def run(options: dict, tmp_path_factory: pytest.TempPathFactory) -> train.Run:
    return train.fit(out=tmp_path_factory.mktemp("run") / "a", **{**options, "epochs": 1})


@pytest.mark.parametrize("format", ["onnx", "torchscript", "pt2"])
def test_the_file_agrees_with_the_model_for_any_batch(run: train.Run, tmp_path: Path, format: train._export.Format):
    if format == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    target = train.export(run, format, tmp_path / "model.bin")
    images = torch.rand(7, 1, 8, 8)
    found = _export._read_and_run(_with_suffix(target, format), images, format)
    np.testing.assert_allclose(found, run.predict(images), atol=1e-5)
    facts = json.loads((tmp_path / "model.bin.json").read_text())
    assert facts == {"classes": ["top", "middle", "bottom"], "size": 8, "channels": 1, "input": "float32 in [0, 1]"}


def _with_suffix(path: Path, format: str) -> Path:
    target = path.with_suffix(_export._SUFFIX[format])
    target.write_bytes(path.read_bytes())
    return target


def test_a_file_that_disagrees_is_not_kept(run: train.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_export, "_read_and_run", lambda *_: np.zeros((3, 3), np.float32))
    with pytest.raises(RunError, match="disagrees"):
        train.export(run, "pt2", tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_refused(run: train.Run):
    with pytest.raises(ConfigError, match="onnx, torchscript or pt2"):
        train.export(run, "tflite")  # type: ignore[arg-type]
