"""Runs with few labels: outputs for classes that nobody named, views of vectors, batches that fit into memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from repertoire import recipe
from repertoire.data import FeatureSet, Splits, load


@pytest.fixture(scope="module")
def splits() -> Splits:
    return load("digits")


def vectors() -> Splits:
    labels = np.arange(60) % 3
    rows = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    part = FeatureSet(rows, labels, [str(i) for i in range(60)], tuple("abc"), np.arange(60, dtype=np.uint64))
    return Splits(part, part, part, "drawn")


def test_classes_that_nobody_named_get_outputs_and_names(splits: Splits):
    config = recipe.make_config(data="digits", labels=4, method="fixmatch:missing_classes=2", batch_size=20)
    built = recipe.build(config, splits)
    names = (*splits.classes, "unnamed 1", "unnamed 2")
    assert built.facts.task.names == names
    assert built.method.model.head.num_classes == 12
    assert all(part.classes == names for part in (built.splits.train, built.splits.test, *built.splits.extra.values()))
    # Those with a name keep their labels, and nobody looks for labels of the others.
    assert built.splits.train.counts().tolist() == [4] * 10 + [0, 0]
    assert "uneven" in built.method.step(next(built.loader().epoch(0))).logs
    assert any("unnamed 2" in note for note in built.notes)
    # What is built of what was built, or of the stored facts of a run, is not named twice.
    again = recipe.build(config, splits, facts=recipe.Facts.stored(built.facts.info()))
    assert again.facts.task.names == names
    assert recipe.build(config.model_copy(update={"labels": None}), built.splits).splits.classes == names


def test_other_methods_have_the_classes_of_the_data(splits: Splits):
    for method in ("fixmatch", "supervised"):
        built = recipe.build(recipe.make_config(data="digits", labels=4, method=method, batch_size=20), splits)
        assert built.facts.task.names == splits.classes


def test_strong_views_of_vectors_have_half_of_them_left_out():
    splits = vectors()
    built = recipe.build(recipe.make_config(data="drawn", labels=4, method="fixmatch", batch_size=12), splits)
    batch = next(built.loader().epoch(0)).streams["unlabelled"]
    stored = torch.from_numpy(built.splits.extra["unlabelled"].inputs(batch.index.numpy()))
    assert torch.equal(batch.view("weak"), stored)
    strong = batch.view("strong")
    kept = strong != 0
    assert torch.equal(strong[kept], 2 * stored[kept])
    assert 0.4 < float(kept.float().mean()) < 0.6
    assert built.method.step(next(built.loader().epoch(0))).loss.isfinite()


def test_a_batch_of_a_pretrained_network_counts_what_comes_with_each_sample(splits: Splits):
    def batch(**fields: object) -> int:
        fields = {"data": "digits", "backbone": "resnet20:pretrained=true", **fields}
        return recipe.resolve(recipe.make_config(**fields), splits).batch_size

    assert batch(method="supervised", tune="all") == 32
    assert batch(method="fixmatch") == 8
    assert batch(method="fixmatch", batch_size=20) == 20


def steps(splits: Splits, **fields: object) -> int:
    built = recipe.build(recipe.make_config(data="drawn", **fields), splits)
    return built.config.epochs * built.loader().steps_per_epoch


@pytest.mark.parametrize("labels", [4, 25])
def test_a_baseline_takes_no_fewer_steps_on_labels(splits: Splits, labels: int):
    """Most of what unlabelled samples seem to add is gone where the baseline learns for as long."""
    methods = ("supervised", "vat", "fixmatch", "unlabelled-loss")
    found = {name: steps(splits, labels=labels, method=name, augment="shift") for name in methods}
    assert found["supervised"] == max(found.values())
    assert min(found.values()) >= 200
    # What is said about batch and epochs holds for all of them alike, and so do the labels that are kept.
    said = {"labels": labels, "batch_size": 20, "epochs": 7, "augment": "shift"}
    assert len({steps(splits, method=name, **said) for name in methods}) == 1
    kept = [
        set(recipe.build(recipe.make_config(data="drawn", method=n, **said), splits).splits.train.keys) for n in methods
    ]
    assert all(each == kept[0] for each in kept)


def test_steps_are_those_of_the_labels_alone():
    """Labels that are set aside, and rows without one, make an epoch no longer, and so do not leave two steps of it."""
    splits = vectors()
    rows = splits.train
    unknown = Splits(replace(rows, labels=np.where(np.arange(60) < 12, rows.labels, -1)), rows, rows, "drawn")
    for method in ("supervised", "vat", "fixmatch"):
        assert steps(splits, labels=4, method=method) == steps(unknown, method=method) >= 300, method
