"""Warnings come when something is off, with the numbers, and not otherwise."""

from __future__ import annotations

import re
from typing import Any

import pytest

from repertoire import registry
from repertoire.recipe import TrainConfig, make_config
from repertoire.report._advice import warnings
from repertoire.report._findings import findings
from repertoire.report._remedies import Remedies

CLASSES = ("cat", "dog")
COUNTS = {"train": [80, 80], "val": [10, 10], "test": [100, 100]}
HISTORY = [
    {"epoch": 1, "train_accuracy": 0.7, "val_accuracy": 0.6},
    {"epoch": 2, "train_accuracy": 0.9, "val_accuracy": 0.85, "best": True},
    {"epoch": 3, "train_accuracy": 1.0, "val_accuracy": 0.8},
]
METRICS = {
    "images": 200,
    "accuracy_interval": [0.8, 0.9],
    "ece": 0.05,
    "reliability": [{"count": 200, "confidence": 0.9, "accuracy": 0.85}],
}


def resolved(**fields: Any) -> TrainConfig:
    """A configuration as a run holds it."""
    usual = {
        "data": "photos", "backbone": "resnet20", "head": "linear", "loss": "cross-entropy", "method": "supervised",
        "augment": "crop-flip", "lr": 0.1, "weight_decay": 0.0005,
    }  # fmt: skip
    return make_config(**{**usual, **fields})


def warned(
    counts: dict[str, list[int]] = COUNTS,
    history: list[dict[str, Any]] = HISTORY,
    metrics: dict[str, Any] = METRICS,
    epochs: int | None = None,
    **fields: Any,
) -> list[Any]:
    return warnings(counts, CLASSES, history, metrics, Remedies(resolved(**fields), epochs))


def titles(
    counts: dict[str, list[int]] = COUNTS,
    history: list[dict[str, Any]] = HISTORY,
    metrics: dict[str, Any] = METRICS,
) -> list[str]:
    return [advice.title for advice in warned(counts, history, metrics)]


def test_a_sound_run_gets_none() -> None:
    assert titles() == []


def test_nothing_is_known_of_a_run_that_has_just_begun() -> None:
    assert titles({}, [], {}) == []


@pytest.mark.parametrize(("rare", "expected"), [(8, False), (7, True), (0, True)])
def test_imbalance(rare: int, expected: bool) -> None:
    found = warned({**COUNTS, "train": [80, rare]})
    assert ["uneven" in advice.title for advice in found] == [True] * expected
    if expected:
        assert found[0].evidence.startswith(f"cat has 80 training images, dog has {rare}")
        assert "--balanced" in found[0].remedy


@pytest.mark.parametrize(("train", "expected"), [(0.99, False), (1.0, False), (1.01, True)])
def test_overfitting_is_judged_at_the_kept_epoch(train: float, expected: bool) -> None:
    history = [HISTORY[0], {**HISTORY[1], "train_accuracy": train}, HISTORY[2]]
    assert titles(history=history) == ["The model remembers more than it understands"] * expected


@pytest.mark.parametrize(("accuracy", "direction"), [(0.7, "more sure"), (1.0, "less sure")])
def test_miscalibration_has_a_direction(accuracy: float, direction: str) -> None:
    reliability = [{"count": 200, "confidence": 0.85, "accuracy": accuracy}]
    (advice,) = warned(metrics={**METRICS, "ece": 0.15, "reliability": reliability})
    assert direction in advice.evidence
    assert "0.150" in advice.evidence


@pytest.mark.parametrize(("accuracy", "expected"), [(0.75, True), (0.8, False)])
def test_the_majority_class_is_the_least_to_beat(accuracy: float, expected: bool) -> None:
    history = [{"epoch": 1, "train_accuracy": 0.8, "val_accuracy": accuracy, "best": True}]
    assert titles({**COUNTS, "val": [15, 5]}, history) == ["The model learned nothing that helps"] * expected


def test_classes_without_test_images_and_small_test_sets() -> None:
    assert titles({**COUNTS, "test": [200, 0]}, metrics={**METRICS, "images": 99}) == [
        "One class is not tested",
        "Few test images",
    ]


#: Everything off at once: nothing learned, uneven, overfitted, over-confident.
BAD: dict[str, Any] = {
    "counts": {"train": [800, 8], "val": [90, 10], "test": [90, 0]},
    "history": [{"epoch": 1, "train_accuracy": 1.0, "val_accuracy": 0.5, "best": True}],
}
SURE = {"images": 90, "accuracy_interval": [0.4, 0.6], "ece": 0.4}
RELIABILITY = {
    "too sure": [{"count": 90, "confidence": 0.9, "accuracy": 0.5}],
    "too little": [{"count": 90, "confidence": 0.1, "accuracy": 0.5}],
}
SICK: dict[str, Any] = {
    "accuracy": 0.5, "test_images": 90,
    "data": {
        "copies": [], "weak_subgroups": [],
        "train": {"surely_wrong": 50, "images": 100, "agreement": 0.9},
        "test": {"surely_wrong": 0, "images": 90, "agreement": 0.9},
    },
    "geometry": {
        "width": 64, "samples": 90, "effective_rank": 1.5, "constant_features": [0, 1], "limited_by_samples": False,
        "neural_collapse_train": {"variability": 0.1}, "neural_collapse_test": {"variability": 9.0},
    },
    "separability": {
        "knn_accuracy": 0.9, "linear_probe_accuracy": 0.8,
        "overlapping_classes": [{"classes": ["cat", "dog"], "share": 0.5}],
    },
    "network": {
        "sparsity": [{"layer": "stage1", "dead": 0.9, "units": 10}],
        "complexity": [{"layer": "stage1", "distinct": 1, "channels": 10}],
    },
}  # fmt: skip
RUNS: list[dict[str, Any]] = [
    {},
    {"loss": "supcon", "method": "embedding", "augment": "simclr"},
    {"loss": "cross-entropy:label_smoothing=0.1", "rule": "sam", "augment": "strong"},
    {"loss": "logit-adjusted", "balanced": True},
    {"loss": "ensloss", "class_weights": True, "epochs": 1},
    {"loss": "vicreg", "method": "embedding"},
    {"tune": "head", "weights": "w.safetensors"},
    {"rule": "local:blocks=4", "augment": "photo+erasing", "tune": "all", "start": "runs/x"},
]


def remarks(which: str, **fields: Any) -> list[str]:
    """The remedies of the report and of the diagnosis of one bad run."""
    report = warned(**BAD, metrics={**SURE, "reliability": RELIABILITY[which]}, **fields)
    return [
        " ".join(advice.remedy for advice in report),
        " ".join(advice.remedy for advice in findings(SICK, Remedies(resolved(**fields)))),
    ]


@pytest.mark.parametrize("which", list(RELIABILITY))
@pytest.mark.parametrize("fields", RUNS, ids=str)
def test_nothing_is_advised_that_the_run_did_or_that_contradicts_itself(fields: dict[str, Any], which: str) -> None:
    config = resolved(**fields)
    for text in remarks(which, **fields):
        options = re.findall(r"--([a-z-]+)(?: ([\w:=.,-]*[\w]))?", text)
        assert options or fields
        for name, value in options:
            own = getattr(config, name.replace("-", "_"))
            assert own is not True, f"{name}: {text}"
            if value:
                assert value != str(own), text
        assert not ("training longer" in text and "fewer epochs" in text)
        assert not ("label_smoothing=" in text and "no label smoothing" in text)
        assert not ("stronger augmentation" in text and "weaker augmentation" in text)


@pytest.mark.parametrize("which", list(RELIABILITY))
@pytest.mark.parametrize("fields", RUNS, ids=str)
def test_what_is_advised_can_be_typed(fields: dict[str, Any], which: str) -> None:
    for text in remarks(which, **fields):
        for name, value in re.findall(r"--([a-z-]+)(?: ([\w:=.,-]*[\w]))?", text):
            known = TrainConfig.model_fields[name.replace("-", "_")]
            if value:
                typed = resolved(**{**fields, name.replace("-", "_"): value})
                assert getattr(typed, name.replace("-", "_")) is not None
                if name in ("loss", "rule", "augment"):
                    kind = {"loss": "losses", "rule": "rules", "augment": "augmentations"}[name]
                    registry.get(kind, registry.parse(value).name)
            else:
                assert known.annotation is bool


def test_a_run_that_stopped_early_is_not_told_to_train_longer() -> None:
    bad = {"counts": BAD["counts"], "history": BAD["history"]}
    assert "longer" in warned(**bad, epochs=20)[0].remedy
    assert "longer" not in warned(**bad, epochs=7)[0].remedy


def test_a_classifier_behind_its_features_is_trained_anew_by_a_command() -> None:
    remedies = Remedies(resolved(data="my photos"), path="runs/a")
    text = " ".join(advice.remedy for advice in findings(SICK, remedies))
    assert "repertoire train 'my photos' --start runs/a --tune head" in text
