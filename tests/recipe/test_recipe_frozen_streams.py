"""Methods with unlabelled samples, of a network of which only the last layers learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from repertoire import recipe, train
from repertoire.data import FeatureSet, Splits
from repertoire.errors import ConfigError

SPEC = "convnet:width=4,depth=3"
FIXMATCH = "fixmatch:ratio=2,threshold=class-adaptive,level=0.6"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPERTOIRE_CACHE", str(tmp_path / "cache"))


def config(weights: str, **fields: object) -> recipe.TrainConfig:
    known = {"backbone": SPEC, "weights": weights, "labels": 4, "epochs": 2, "batch_size": 4, "tune": "head"}
    return recipe.make_config(data="drawn", **{**known, **fields})


@pytest.mark.parametrize("tune", ["head", "last:1"])
@pytest.mark.parametrize("method", [FIXMATCH, "vat:ratio=2", "unlabelled-loss:ratio=2", "robust-self-training:ratio=2"])
def test_the_stream_holds_what_the_frozen_layers_give(splits: Splits, weights: str, method: str, tune: str):
    built = recipe.build(config(weights, method=method, tune=tune), splits)
    unlabelled, model = built.splits.extra["unlabelled"], built.method.model
    assert isinstance(unlabelled, FeatureSet)
    assert len(unlabelled) == 40
    whole = recipe.build(config(weights, method=method, tune="all"), splits).splits.extra["unlabelled"]
    pixels = torch.stack([whole[i][0] for i in range(len(whole))])
    with torch.no_grad():
        expected = model.eval().activations(pixels, model.enters)
    assert model.enters == {"head": 3, "last:1": 2}[tune]
    found = torch.from_numpy(unlabelled.inputs(range(len(unlabelled)))).float()
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)
    step = built.method.train().step(next(built.loader().epoch(0)))
    assert step.loss.isfinite()


def test_it_is_training_on_a_file_of_the_features(splits: Splits, weights: str):
    """The frozen network is looked at once, and what a step makes of it is what it makes of features."""
    built = recipe.build(config(weights, method=FIXMATCH), splits)
    parts = {name: getattr(built.splits, name) for name in ("train", "val", "test")}
    alone = Splits(**parts, source="features", extra={"unlabelled": built.splits.extra["unlabelled"]})
    fields = {"backbone": "identity", "method": FIXMATCH, "batch_size": 4, "augment": "none"}
    other = recipe.build(recipe.make_config(data="drawn", **fields), alone)
    for a, b in zip(built.loader().epoch(0), other.loader().epoch(0), strict=True):
        assert torch.equal(a.images, b.images)
        for view in ("weak", "strong"):
            assert torch.equal(a.streams["unlabelled"].view(view), b.streams["unlabelled"].view(view))
    assert any("has half of it left out" in note for note in built.notes)
    assert not any("half" in note for note in recipe.build(config(weights, method="vat"), splits).notes)


def test_a_copy_of_the_network_takes_what_the_network_takes(splits: Splits, weights: str):
    method = recipe.build(config(weights, method="fixmatch:blend=prototypes,warm_up=0,ratio=2"), splits).method
    assert method.teacher.network.enters == method.model.enters == 3
    copied = method.teacher.network
    features = torch.rand(2, method.model.backbone.out_features)
    assert torch.equal(copied.embed(features), features)


@pytest.mark.parametrize("method", [FIXMATCH, "fixmatch:blend=prototypes,warm_up=1,ratio=2", "vat:ratio=2"])
def test_a_head_learns_alone_with_a_moving_average_and_goes_on(
    splits: Splits, weights: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What is frozen is neither averaged nor written, and a run that was cut ends in the same weights."""
    wanted = config(weights, method=method, epochs=4, ema=0.9)
    whole = train.fit(config=wanted, splits=splits, out=tmp_path / "whole")
    newest = sorted((tmp_path / "whole" / "checkpoints").glob("step-*"))[-1]
    held = train._checkpoint.load(newest).tensors
    assert not any(name.startswith(("method.model.backbone.", "average.model.backbone.")) for name in held)

    class Stopped(Exception):
        pass

    original = train.Loop._finish_epoch

    def stop(self: train.Loop, *args: object) -> None:
        original(self, *args)
        if self.progress.epoch == 2:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(train.Loop, "_finish_epoch", stop)
        with pytest.raises(Stopped):
            train.fit(config=wanted, splits=splits, out=tmp_path / "cut")
    resumed = train.resume(tmp_path / "cut", splits=splits)
    for name, value in train.last_state(tmp_path / "whole").items():
        assert torch.equal(value, train.last_state(tmp_path / "cut")[name]), name
    assert resumed.metrics == whole.metrics


def test_auto_begins_with_the_head_alone(splits: Splits, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("repertoire.train._session.HEAD_EPOCHS", 2)
    run = train.fit(config=config(weights, method=FIXMATCH, tune="auto", epochs=1), splits=splits, out=tmp_path / "a")
    assert run.config.tune == "auto"
    assert "accuracy" in run.info["head_only"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"method": "mean-teacher"},
            "new views of every image in every epoch: use tune='all', or a method",
        ),
        ({"method": "unmixmatch"}, "new views of every image in every epoch"),
        ({"method": "robust-semi"}, "the teacher of method 'robust-semi' looks at images: use tune='all'"),
        ({"method": "guided"}, "needs more than the images' features: use tune='all'"),
    ],
)
def test_what_looks_at_images_is_refused_with_a_way_out(splits: Splits, weights: str, fields: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        recipe.resolve(config(weights, **fields), splits)


def test_labels_that_are_set_aside_join_what_has_none(splits: Splits, tmp_path: Path):
    from PIL import Image

    (tmp_path / "more").mkdir()
    for i in range(5):
        Image.fromarray(np.full((16, 16, 3), 40 * i, np.uint8)).save(tmp_path / "more" / f"{i}.png")
    fields = {"labels": 4, "method": "fixmatch", "batch_size": 4, "backbone": SPEC}
    wanted = recipe.make_config(data="drawn", **fields, unlabelled=str(tmp_path / "more"))
    built = recipe.build(wanted, splits)
    assert len(built.splits.train) == 8
    assert len(built.splits.extra["unlabelled"]) == 45
    assert not built.splits.extra["unlabelled"].known[-5:].any()
