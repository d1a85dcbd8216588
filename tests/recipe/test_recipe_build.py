from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from repertoire import recipe, train
from repertoire.data import FeatureSet, ImageSet, Splits
from repertoire.errors import ConfigError, DataError
from repertoire.methods import Stage

SPEC = "convnet:width=4,depth=3"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REPERTOIRE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def config(**fields: object) -> recipe.TrainConfig:
    return recipe.make_config(data="drawn", **{"backbone": SPEC, "epochs": 2, "batch_size": 8, **fields})


def test_first_weights_are_a_function_of_the_seed_alone(splits: Splits):
    first = recipe.build(config(seed=3), splits).method.state_dict()
    torch.rand(5)
    again = recipe.build(config(seed=3), splits).method.state_dict()
    other = recipe.build(config(seed=4), splits).method.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_to_resolve_twice_is_to_resolve_once(splits: Splits, weights: str):
    for fields in ({}, {"weights": weights}, {"weights": weights, "tune": "head"}, {"loss": "supcon"}):
        given = recipe.make_config(data="drawn", backbone=SPEC, **fields)
        once = recipe.resolve(given, splits)
        assert recipe.resolve(once, splits) == once


def test_what_learns_is_what_was_said(splits: Splits, weights: str):
    names = {}
    for tune in ("head", "last:1", "last:3", "all"):
        method = recipe.build(config(weights=weights, tune=tune), splits).method
        names[tune] = {name.split(".", 2)[1] for name, p in method.named_parameters() if p.requires_grad}
        blocks = {name for name, p in method.named_parameters() if p.requires_grad and "backbone" in name}
        assert len(blocks) == {"head": 0, "last:1": 3, "last:3": 9, "all": 9}[tune]
    assert names["head"] == {"head"}
    assert names["last:1"] == {"head", "backbone"}


@pytest.mark.parametrize(("tune", "block"), [("head", 3), ("last:1", 2), ("last:3", 0)])
def test_training_on_what_frozen_layers_give_is_training_on_images(splits: Splits, weights: str, tune: str, block: int):
    built = recipe.build(config(weights=weights, tune=tune), splits)
    assert isinstance(built.splits.train, FeatureSet)
    model = built.method.model.eval()
    assert model.enters == block
    inside = next(built.loader().epoch(0))
    whole = splits.train.pixels(inside.index.numpy())
    pixels = torch.from_numpy(whole).permute(0, 3, 1, 2).float() / 255
    expected = model.head(model.backbone(model.normalize(pixels)))
    torch.testing.assert_close(model(inside.images), expected, rtol=5e-3, atol=5e-3)


def test_what_frozen_layers_give_is_kept_by_content_and_weights(
    splits: Splits, weights: str, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe.build(config(weights=weights, tune="head"), splits)
    files = sorted((cache / "activations").iterdir())
    assert len(files) == 3
    calls: list[str] = []
    recipe.build(config(weights=weights, tune="head"), splits, report=calls.append)
    assert calls == []
    assert sorted((cache / "activations").iterdir()) == files
    # A file that was cut short is made anew.
    files[0].write_bytes(files[0].read_bytes()[:-7])
    recipe.build(config(weights=weights, tune="head"), splits, report=calls.append)
    assert len(calls) == 1
    recipe.build(config(weights=weights, tune="last:1"), splits)
    assert len(list((cache / "activations").iterdir())) == 6


def test_the_rate_of_a_pretrained_stage_falls_towards_the_images(splits: Splits, weights: str):
    built = recipe.build(config(weights=weights, tune="all", lr=0.1, layer_decay=0.5), splits)
    rates = {}
    optimizer = built.make_optimizer(built.method)
    names = {id(p): name for name, p in built.method.named_parameters()}
    for group in optimizer.param_groups:
        rates.update({names[id(p)]: group["lr"] for p in group["params"]})
    assert rates["model.head.linear.weight"] == pytest.approx(0.1)
    assert [rates[f"model.backbone.blocks.{i}.conv.weight"] for i in range(3)] == pytest.approx([0.0125, 0.025, 0.05])
    plain = recipe.build(config(lr=0.1), splits)
    assert {group["lr"] for group in plain.make_optimizer(plain.method).param_groups} == {0.1}


@pytest.mark.parametrize("rule", ["backprop", "local:blocks=3,auxiliary=linear", "local:blocks=2,auxiliary=linear"])
def test_the_rates_are_the_same_whatever_pieces_a_rule_trains(splits: Splits, weights: str, rule: str):
    built = recipe.build(config(weights=weights, tune="all", lr=0.1, layer_decay=0.5, rule=rule), splits)
    found = built.rule()
    found.setup(built.method, built.make_optimizer, example=torch.zeros(2, 3, 16, 16))
    names = {id(p): name for name, p in built.method.named_parameters()}
    rates = {
        names[id(p)]: group["lr"]
        for optimizer in found.optimizers
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert set(rates) == set(names.values())
    for name, rate in rates.items():
        stage = int(name.split(".")[3]) if name.startswith("model.backbone.") else 3
        assert rate == pytest.approx([0.0125, 0.025, 0.05, 0.1][stage]), name


def test_batch_normalisation_keeps_pretrained_statistics_in_small_batches(splits: Splits, weights: str):
    model = recipe.build(config(weights=weights, tune="all"), splits).method.train().model
    before = model.backbone.blocks[0].norm.running_mean.clone()
    model(torch.rand(8, 3, 16, 16))
    assert torch.equal(model.backbone.blocks[0].norm.running_mean, before)
    scratch = recipe.build(config(), splits).method.train().model
    scratch(torch.rand(8, 3, 16, 16))
    assert not torch.equal(scratch.backbone.blocks[0].norm.running_mean, torch.zeros(4))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tune": "head"}, "random weights"),
        ({"tune": "last:9", "weights": True}, "more stages than the network has: 3"),
        ({"tune": "head", "weights": True, "method": "simclr"}, "needs new views"),
        ({"tune": "head", "weights": True, "rule": "local:blocks=2"}, "trains the layers itself"),
        ({"weights": True, "from_scratch": True}, "exclude each other"),
        ({"tune": "most"}, "expected auto, head, all, or last:K"),
        ({"loss": "mse"}, "is for numbers, and this data has one class each"),
        ({"loss": "bce"}, "is for several labels each, and this data has one class each"),
        ({"method": "fixmatch"}, "labels=4"),
        ({"head": "support-trivial", "method": "supervised"}, "looks at maps"),
    ],
)
def test_what_does_not_go_together_is_refused(splits: Splits, weights: str, fields: dict, message: str):
    fields = {name: weights if name == "weights" else value for name, value in fields.items()}
    with pytest.raises((ConfigError, DataError), match=message):
        recipe.build(config(**fields), splits)


def test_some_labels_are_kept_and_the_rest_is_a_stream(splits: Splits):
    built = recipe.build(config(labels=4, method="fixmatch", batch_size=4, augment="shift"), splits)
    assert built.splits.train.counts().tolist() == [4, 4]
    assert len(built.splits.extra["unlabelled"]) == 40
    assert not set(built.splits.train.keys) & set(built.splits.extra["unlabelled"].keys)
    batch = next(built.loader().epoch(0))
    stream = batch.streams["unlabelled"]
    assert len(stream) == 28
    assert set(stream.names) == {"weak", "strong"}
    with pytest.raises(DataError, match="fewer than labels"):
        recipe.build(config(labels=30), splits)


def test_auto_keeps_the_head_alone_where_tuning_all_is_worse(splits: Splits, weights: str, tmp_path: Path):
    """With a learning rate that ruins the network, what stays is the head of the first half."""
    run = train.fit(
        config=config(weights=weights, tune="auto", epochs=1, lr=1e-12, optimizer="sgd"),
        splits=splits,
        out=tmp_path / "a",
    )
    assert run.info["head_only"]["accuracy"] >= run.history[0]["val_accuracy"] - 1e-9
    assert run.metrics["val_accuracy"] >= run.info["head_only"]["accuracy"]
    assert "weights" in run.info["start"]


def test_a_run_starts_from_another_with_the_head_of_common_classes(splits: Splits, tmp_path: Path):
    first = train.fit(config=config(epochs=3, lr=0.05), splits=splits, out=tmp_path / "first")
    swapped = Splits(
        *(
            ImageSet(p.images, 1 - p.labels, p.names, ("bright", "dark"), p.keys)
            for p in (splits.train, splits.val, splits.test)
        ),
        "swapped",
    )
    built = recipe.build(config(start=str(tmp_path / "first"), tune="head"), swapped)
    head = first.model.head.linear.weight
    torch.testing.assert_close(built.method.model.head.linear.weight.data, head.data[[1, 0]])
    assert built.record["head"] == "2 of 2 classes taken over"


def test_the_next_stage_keeps_what_its_own_classes_count(splits: Splits):
    """What the stage before knew of its training set is not true of the next one, though it has the same shape."""
    rare = splits.train.subset(np.concatenate([np.flatnonzero(splits.train.labels == 0)[:3], np.arange(1, 48, 2)]))
    first = recipe.build(config(method="experts"), splits)
    before = {name: value + 1 for name, value in first.method.state_dict().items()}
    stage = Stage(1, 2, splits.classes, (), len(rare), 2)
    later = Splits(rare, splits.val, splits.test, "later")
    alone = recipe.build(config(method="experts"), later).method
    found = recipe.build(
        config(method="experts"), later, stage_start=recipe.StageStart(stage, before, len(splits.classes))
    ).method
    for name in ("shifts", "prior"):
        assert torch.equal(found.get_buffer(name), alone.get_buffer(name)), name
        assert not torch.equal(found.get_buffer(name), first.method.get_buffer(name)), name
    weight = "model.backbone.blocks.0.conv.weight"
    assert torch.equal(found.state_dict()[weight], before[weight])
