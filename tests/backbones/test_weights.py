"""Loading weights: our layout, the published one, part of a run; and everything that can be wrong with the file."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from repertoire.backbones import ConvNet, load_weights, resnet20, resnet32
from repertoire.errors import CheckpointError, ConfigError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _published(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    names = net.public_names()  # type: ignore[operator]
    return {names[ours]: tensor for ours, tensor in net.state_dict().items() if "num_batches" not in ours}


def _same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.backbone.", "method.model.backbone.", "module."])
def test_our_own_layout(tmp_path: Path, prefix: str) -> None:
    source, target = ConvNet(width=4), ConvNet(width=4)
    path = tmp_path / "w.safetensors"
    state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    save_file({**state, "head.weight": torch.ones(2, 3)}, path)
    rest = load_weights(target, path)
    assert _same(source, target)
    assert list(rest) == ["head.weight"]


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_the_published_layout(tmp_path: Path, shortcut: str) -> None:
    source, target = resnet20(width=4, shortcut=shortcut), resnet20(width=4, shortcut=shortcut)  # type: ignore[arg-type]
    state = _published(source)
    assert {"conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer3.2.bn2.bias"} <= set(state)
    assert ("layer2.0.downsample.0.weight" in state) == (shortcut == "B")
    save_file({**state, "linear.weight": torch.ones(10, 16), "linear.bias": torch.ones(10)}, tmp_path / "w.safetensors")
    rest = load_weights(target, tmp_path / "w.safetensors")
    assert _same(source, target)
    assert set(rest) == {"linear.weight", "linear.bias"}


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    average, last, target = ConvNet(width=4), ConvNet(width=4), ConvNet(width=4)
    state = {f"method.model.backbone.{name}": tensor for name, tensor in last.state_dict().items()}
    state |= {f"average.model.backbone.{name}": tensor for name, tensor in average.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors")
    assert _same(average, target)


def test_another_network_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    small, path = resnet20(width=4), tmp_path / "w.safetensors"
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    save_file(_published(resnet32(width=4)), path)
    with pytest.raises(CheckpointError, match=r"larger network.*layer1\.3"):
        load_weights(small, path)
    with pytest.raises(CheckpointError, match="expected"):
        load_weights(resnet32(width=8), path)
    save_file(_published(small), path)
    with pytest.raises(CheckpointError, match=r"missing.*layer1\.3"):
        load_weights(resnet32(width=4), path)
    with pytest.raises(CheckpointError, match=r"conv1\.weight is \[4, 3, 3, 3\], expected \[4, 1, 3, 3\]"):
        load_weights(resnet20(in_channels=1, width=4), path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file"):
        load_weights(ConvNet(), tmp_path / "missing.safetensors")
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_weights(ConvNet(), path)
    save_file(ConvNet().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_weights(ConvNet(), path)


@pytest.mark.slow
def test_published_weights_reach_their_accuracy() -> None:
    """0.8103 on all 10,000 test JPEGs of CIFAR-10."""
    folder = os.environ.get("REPERTOIRE_SHARED_DATA")
    if not folder:
        pytest.skip(
            "REPERTOIRE_SHARED_DATA does not name the directory with cifar10.zip and cifar10_resnet20.safetensors"
        )
    net = resnet20().eval()
    head = load_weights(net, Path(folder) / "cifar10_resnet20.safetensors")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    right = total = 0
    with zipfile.ZipFile(Path(folder) / "cifar10.zip") as archive, torch.inference_mode():
        files = sorted(name for name in archive.namelist() if name.startswith("test/") and name.endswith(".jpg"))
        classes = sorted({name.split("/")[1] for name in files})
        for start in range(0, len(files), 500):
            chunk = files[start : start + 500]
            pixels = np.stack([np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in chunk])
            images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
            logits = net(images) @ head["linear.weight"].T + head["linear.bias"]
            targets = torch.tensor([classes.index(name.split("/")[1]) for name in chunk])
            right += int((logits.argmax(1) == targets).sum())
            total += len(chunk)
    assert total == 10_000
    assert round(right / total, 4) == 0.8103
