from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from repertoire import backbones, train
from repertoire.errors import ConfigError, MissingExtra, RunError
from repertoire.train import _export


@pytest.fixture(scope="module")
def run(options: dict, tmp_path_factory: pytest.TempPathFactory) -> train.Run:
    return train.fit(out=tmp_path_factory.mktemp("run") / "a", **{**options, "epochs": 3})


def needs_onnx() -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")


def ask(target: Path, format: str, images: torch.Tensor) -> np.ndarray:
    """What the file answers, read as a user would who has no Repertoire."""
    if format == "pt2":
        return torch.export.load(target).module()(images).detach().numpy()
    if format == "torchscript":
        return torch.jit.load(target)(images).detach().numpy()
    import onnxruntime

    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"images": images.numpy()})[0]


@pytest.mark.parametrize("format", ["onnx", "torchscript", "pt2"])
def test_the_file_agrees_with_the_model_for_any_batch(run: train.Run, tmp_path: Path, format: str):
    if format == "onnx":
        needs_onnx()
    target = run.export(format, tmp_path / "model.bin")
    for count in (1, 2, 7):
        images = torch.rand(count, 1, 8, 8)
        np.testing.assert_allclose(ask(target, format, images), run.predict(images), atol=1e-5)
    facts = json.loads((tmp_path / "model.bin.json").read_text())
    assert facts["classes"] == ["top", "middle", "bottom"]
    assert facts["input"]["shape"] == ["batch", 1, 8, 8]
    assert facts["preprocessing"]["fit"] == run.config.fit
    assert (facts["preprocessing"]["resize"]["filter"], facts["precision"]) == ("bicubic", "float32")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.bin", "model.bin.json"]


def test_an_onnx_file_knows_how_to_be_fed(run: train.Run, tmp_path: Path):
    needs_onnx()
    import onnxruntime

    target = run.export("onnx", tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 1, 8, 8]
    assert session.get_outputs()[0].shape == ["batch", 3]
    stored = session.get_modelmeta().custom_metadata_map
    beside = json.loads((tmp_path / "model.onnx.json").read_text())
    assert json.loads(stored["preprocessing"]) == beside["preprocessing"]
    assert json.loads(stored["classes"]) == beside["classes"]


BACKBONES = ["vit:patch=4,depth=1,dim=32,heads=2", "mlp", "resnet20:width=4"]


@pytest.mark.parametrize("spec", BACKBONES)
@pytest.mark.parametrize("format", ["onnx", "torchscript", "pt2"])
def test_networks_of_every_kind_export(options: dict, tmp_path: Path, spec: str, format: str):
    """Attention is what a traced batch size is baked into."""
    if format == "onnx":
        needs_onnx()
    run = train.fit(out=tmp_path / "a", **{**options, "epochs": 1, "backbone": spec})
    target = run.export(format)
    for count in (1, 4):
        images = torch.rand(count, 1, 8, 8)
        np.testing.assert_allclose(ask(target, format, images), run.predict(images), atol=1e-4)


@pytest.mark.parametrize("name", ["test_vit", "vit_tiny_patch16_224"])
def test_a_traced_network_of_timm_takes_any_batch(name: str, options: dict, tmp_path: Path):
    try:
        backbones.Timm("test_vit")  # also beside a torchvision that was not built for this torch
    except MissingExtra:
        pytest.skip("timm is not installed")
    run = train.fit(out=tmp_path / "a", **{**options, "epochs": 1, "backbone": f"timm:{name}", "size": 32})
    target = run.export("torchscript")
    for count in (1, 2, 5):
        images = torch.rand(count, 1, 32, 32)
        np.testing.assert_allclose(ask(target, "torchscript", images), run.predict(images), atol=1e-4)


@pytest.mark.parametrize("head", ["harmonic", "cosine"])
def test_heads_of_distances_export(options: dict, tmp_path: Path, head: str):
    run = train.fit(out=tmp_path / "a", **{**options, "epochs": 1, "head": head})
    for format in ("torchscript", "pt2"):
        run.export(format)


@pytest.mark.parametrize("format", ["onnx", "torchscript", "pt2"])
def test_half_says_what_it_costs(run: train.Run, tmp_path: Path, format: str):
    if format == "onnx":
        needs_onnx()
    whole = run.export(format, tmp_path / "whole")
    half = run.export(format, tmp_path / "half", half=True)
    assert half.stat().st_size < whole.stat().st_size
    cost = json.loads((tmp_path / "half.json").read_text())["difference"]
    assert cost["images"] == len(run.splits.test)
    assert cost["agreement"] > 0.95
    assert 0 < cost["largest"] < 0.05
    assert cost["accuracy"] == pytest.approx(run.metrics["accuracy"])
    images = torch.rand(4, 1, 8, 8)
    found = ask(half, format, images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, run.predict(images), atol=0.05)


def test_int8_says_what_it_costs(run: train.Run, tmp_path: Path):
    needs_onnx()
    int8 = run.export("onnx", tmp_path / "int8.onnx", int8=True)
    facts = json.loads((tmp_path / "int8.onnx.json").read_text())
    assert facts["precision"] == "int8"
    assert facts["difference"]["agreement"] > 0.8
    assert ask(int8, "onnx", torch.rand(5, 1, 8, 8)).shape == (5, 3)


def test_the_backbone_alone_can_be_started_from(run: train.Run, options: dict, tmp_path: Path):
    from safetensors import safe_open

    target = run.export("backbone", tmp_path / "b.safetensors")
    with safe_open(target, "pt") as file:
        assert file.metadata()["backbone"] == run.config.backbone
        assert set(file.keys()) == set(run.model.backbone.state_dict())
    again = train.fit(out=tmp_path / "again", **{**options, "epochs": 1, "weights": str(target)})
    assert again.info["status"] == "finished"


def test_a_file_that_disagrees_is_not_kept(run: train.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_export, "_reader", lambda *_: lambda images: np.zeros((len(images), 3), np.float32))
    with pytest.raises(RunError, match="disagrees"):
        run.export("pt2", tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_knows_one_batch_size_is_not_kept(run: train.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def only_three(images: torch.Tensor) -> np.ndarray:
        if len(images) != 3:
            raise RuntimeError("Sizes of tensors must match")
        return run.predict(images).astype(np.float32)

    monkeypatch.setattr(_export, "_reader", lambda *_: only_three)
    with pytest.raises(RunError, match="does not work for 1 images"):
        run.export("torchscript", tmp_path / "model.ts")


def test_a_full_disk_is_one_line_and_leaves_nothing(run: train.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import errno

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="no space left"):
        run.export("torchscript", tmp_path / "model.ts")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"format": "tflite"}, "onnx, torchscript, pt2 or backbone"),
        ({"format": "pt2", "int8": True}, "int8 is for ONNX"),
        ({"format": "onnx", "int8": True, "half": True}, "exclude each other"),
    ],
)
def test_what_cannot_be_written_is_refused(run: train.Run, named: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        run.export(**named)
