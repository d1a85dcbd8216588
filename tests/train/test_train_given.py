"""Data, networks, losses and callbacks that are given from memory."""

from __future__ import annotations

import inspect
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import repertoire
from repertoire import registry
from repertoire.data import FeatureSet, load
from repertoire.errors import ConfigError, DataError, RepertoireWarning, RunError
from repertoire.losses import Focal
from repertoire.recipe import IN_MEMORY, TrainConfig

QUICK = {"backbone": "convnet:width=4,depth=2", "epochs": 1, "device": "cpu", "augment": "none"}


@pytest.fixture(autouse=True)
def _forgotten():
    """Components that a test gave are gone after it."""
    yield
    for kind in ("backbones", "losses"):
        for name in [name for name in registry._REGISTRY[kind] if name.startswith("given-")]:
            del registry._REGISTRY[kind][name]


@pytest.fixture(scope="module")
def pixels(tiny: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(tiny) as held:
        return held["images"], held["labels"]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 5, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x).relu()


def test_arrays_and_splits_are_trained_on(pixels, tiny: Path, tmp_path: Path):
    x, y = pixels
    names = np.array(["top", "middle", "bottom"])[y]
    one = repertoire.fit((x, names), out=tmp_path / "a", **QUICK)
    assert one.config.data == IN_MEMORY
    assert one.classes == ("bottom", "middle", "top")
    assert one.evaluate()["images"] == len(one.splits.test)
    planes = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255
    two = repertoire.fit([planes, list(names)], out=tmp_path / "b", **QUICK)
    assert two.metrics == one.metrics
    splits = load(tiny)
    three = repertoire.fit(splits, out=tmp_path / "c", **QUICK)
    assert three.splits is splits
    assert len(repertoire.fit(splits.train, out=tmp_path / "d", **QUICK).splits.train) < len(splits.train)


def test_features_in_memory_get_a_head(tmp_path: Path):
    generator = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = (generator.normal(size=(60, 6)) + 3 * y[:, None]).astype(np.float32)
    run = repertoire.fit((x, y), out=tmp_path / "a", epochs=20, device="cpu")
    assert run.config.backbone == "identity"
    assert run.metrics["accuracy"] > 0.8
    rows = FeatureSet(x, y.astype(np.int64), [str(i) for i in range(60)], ("a", "b"), np.arange(60, dtype=np.uint64))
    assert repertoire.fit(rows, out=tmp_path / "b", epochs=1, device="cpu").classes == ("a", "b")


def test_data_in_memory_is_asked_for_again(pixels, tmp_path: Path):
    repertoire.fit(pixels, out=tmp_path / "a", **QUICK)
    again = repertoire.load(tmp_path / "a")
    assert again.predict(pixels[0][:2]).shape == (2, 3)
    with pytest.raises(DataError, match="in memory"):
        again.evaluate()
    info = json.loads((tmp_path / "a" / "run.json").read_text())
    (tmp_path / "a" / "run.json").write_text(json.dumps({**info, "status": "interrupted"}))
    with pytest.raises(RunError, match="in memory; give it again: splits="):
        repertoire.train.resume(tmp_path / "a")


@pytest.mark.parametrize(
    ("data", "message"),
    [(3, "data is a int"), ((np.zeros((4, 4)),), "data is a tuple"), ({"x": 1}, "data is a dict"),
     ((np.zeros(4), np.zeros(4)), r"found float64 \[4\]")],
)  # fmt: skip
def test_what_is_no_data_is_refused_in_words(data: object, message: str, tmp_path: Path):
    with pytest.raises(DataError, match=message):
        repertoire.fit(data, out=tmp_path / "a", epochs=1)
    assert not (tmp_path / "a").exists()


def test_a_table_of_paths_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pandas = pytest.importorskip("pandas")
    generator = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(generator.integers(0, 255, (8, 8), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    frame = pandas.DataFrame({"path": [f"{i}.png" for i in range(40)], "label": ["even", "odd"] * 20})
    monkeypatch.chdir(tmp_path)
    run = repertoire.fit(frame, out=tmp_path / "run", **QUICK)
    monkeypatch.chdir("/")
    assert run.classes == ("even", "odd")
    again = repertoire.load(tmp_path / "run")
    assert again.evaluate() == {**again.evaluate()}
    assert not again.data_changed


@pytest.mark.parametrize("network", [Small(), nn.Sequential(Small(), nn.Flatten())], ids=["maps", "features"])
def test_a_module_is_a_backbone_and_is_asked_for_again(network: nn.Module, tiny: Path, tmp_path: Path):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    run = repertoire.fit(tiny, out=tmp_path / "a", **{**QUICK, "backbone": network})
    assert run.config.backbone.startswith("given-")
    assert any("needed again" in note for note in run.info["notes"])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    x = np.zeros((3, 8, 8, 1), np.uint8)
    expected = run.predict(x)
    registry._REGISTRY["backbones"].pop(run.config.backbone)
    with pytest.raises(RunError, match=r"give them again: load\(path, backbone="):
        repertoire.load(tmp_path / "a").predict(x)
    np.testing.assert_array_equal(repertoire.load(tmp_path / "a", backbone=network).predict(x), expected)


@pytest.mark.parametrize(
    ("loss", "name"),
    [(nn.CrossEntropyLoss(label_smoothing=0.1), "given-cross-entropy-loss"), (Focal(gamma=1.0), "given-focal"),
     (nn.functional.cross_entropy, "given-cross-entropy")],
)  # fmt: skip
def test_a_module_or_a_function_is_a_loss(loss: object, name: str, tiny: Path, tmp_path: Path):
    run = repertoire.fit(tiny, out=tmp_path / "a", **QUICK, loss=loss)
    assert run.config.loss == name
    same = {"given-cross-entropy-loss": "cross-entropy:label_smoothing=0.1", "given-focal": "focal:gamma=1.0",
            "given-cross-entropy": "cross-entropy"}  # fmt: skip
    named = repertoire.fit(tiny, out=tmp_path / "b", **QUICK, loss=same[name])
    assert named.metrics == run.metrics


def test_what_is_no_module_is_refused(tiny: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="backbone is a int; expected a name or a torch"):
        repertoire.fit(tiny, backbone=3, out=tmp_path / "a")
    with pytest.raises(ConfigError, match="loss is a int; expected a name, a loss"):
        repertoire.fit(tiny, loss=3, out=tmp_path / "a")
    with pytest.raises(ConfigError, match="Conv2d does not take inputs"):
        repertoire.fit(tiny, out=tmp_path / "a", backbone=nn.Conv2d(3, 4, 3))
    run = repertoire.fit(tiny, out=tmp_path / "a", **QUICK)
    with pytest.raises(ConfigError, match="leave it out"):
        repertoire.load(run.path, backbone=Small())


def test_callbacks_see_every_epoch_and_cannot_end_the_run(tiny: Path, tmp_path: Path):
    seen = []

    def spoil(row: dict) -> None:
        assert (tmp_path / "a" / "checkpoints" / f"step-{row['step']:09d}.safetensors").exists()
        seen.append(dict(row))
        row.clear()

    def fail(row: dict) -> None:
        raise OSError("the server is gone")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = repertoire.fit(tiny, out=tmp_path / "a", **{**QUICK, "epochs": 3}, callbacks=[fail, spoil])
    assert seen == run.history
    said = [str(w.message) for w in caught if issubclass(w.category, RepertoireWarning)]
    assert [line.split(" failed")[0] for line in said] == ["the callback fail"]
    assert run.info["status"] == "finished"


def test_what_is_recorded_beside_stays_in_the_record(tiny: Path, tmp_path: Path):
    run = repertoire.fit(tiny, out=tmp_path / "a", **QUICK, record={"project": "moths", "status": "mine"})
    assert (run.info["project"], run.info["status"]) == ("moths", "finished")


def test_every_option_can_be_completed():
    shown = inspect.signature(repertoire.fit).parameters
    assert set(TrainConfig.model_fields) <= set(shown)
    assert shown["epochs"].default == 20


def test_a_refused_configuration_makes_no_directory(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="precision 16"):
        repertoire.fit(tiny, **QUICK, precision="16")
    assert os.listdir(tmp_path) == []


def test_a_run_is_resumed_with_the_plugins_that_are_named(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "noisy_plugin.py").write_text("print('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    run = repertoire.fit(tiny, out=tmp_path / "a", **QUICK, plugins=("noisy_plugin",))
    info = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**info, "status": "interrupted"}))
    monkeypatch.delitem(__import__("sys").modules, "noisy_plugin")
    capsys.readouterr()
    with pytest.raises(RunError, match="names plugins, which are code"):
        repertoire.train.resume(run.path)
    assert "imported" not in capsys.readouterr().out
    assert repertoire.train.resume(run.path, plugins="noisy_plugin").info["status"] == "finished"
    assert "imported" in capsys.readouterr().out


def test_it_is_said_beforehand_how_long_training_takes(tiny: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr("repertoire.train._loop.WORTH_SAYING", 0.0)
    run = repertoire.fit(tiny, out=tmp_path / "a", **{**QUICK, "epochs": 2, "batch_size": 16}, quiet=False)
    said = [line for line in capsys.readouterr().err.splitlines() if "will take about" in line]
    # Four steps were looked at, of which the first is not counted.
    assert [line.split(" will")[0] for line in said] == [f"{run.history[-1]['step'] - 4} steps"]
    repertoire.fit(tiny, out=tmp_path / "b", **QUICK)
    assert "will take" not in capsys.readouterr().err
