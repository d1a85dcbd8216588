"""Warnings come when something is off, with the numbers, and not otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from repertoire.report._advice import warnings

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


def titles(
    counts: dict[str, list[int]] = COUNTS,
    history: list[dict[str, Any]] = HISTORY,
    metrics: dict[str, Any] = METRICS,
) -> list[str]:
    return [advice.title for advice in warnings(counts, CLASSES, history, metrics)]


def test_a_sound_run_gets_none() -> None:
    assert titles() == []


def test_nothing_is_known_of_a_run_that_has_just_begun() -> None:
    assert titles({}, [], {}) == []


@pytest.mark.parametrize(("rare", "warned"), [(8, False), (7, True), (0, True)])
def test_imbalance(rare: int, warned: bool) -> None:
    found = warnings({**COUNTS, "train": [80, rare]}, CLASSES, HISTORY, METRICS)
    assert ["uneven" in advice.title for advice in found] == [True] * warned
    if warned:
        assert found[0].evidence.startswith(f"cat has 80 training images, dog has {rare}")
        assert "--balanced" in found[0].remedy


@pytest.mark.parametrize(("train", "warned"), [(0.99, False), (1.0, False), (1.01, True)])
def test_overfitting_is_judged_at_the_kept_epoch(train: float, warned: bool) -> None:
    history = [HISTORY[0], {**HISTORY[1], "train_accuracy": train}, HISTORY[2]]
    assert titles(history=history) == ["The model remembers more than it understands"] * warned


@pytest.mark.parametrize(("accuracy", "direction"), [(0.7, "more sure"), (1.0, "less sure")])
def test_miscalibration_has_a_direction(accuracy: float, direction: str) -> None:
    reliability = [{"count": 200, "confidence": 0.85, "accuracy": accuracy}]
    (advice,) = warnings(COUNTS, CLASSES, HISTORY, {**METRICS, "ece": 0.15, "reliability": reliability})
    assert direction in advice.evidence
    assert "0.150" in advice.evidence


@pytest.mark.parametrize(("accuracy", "warned"), [(0.75, True), (0.8, False)])
def test_the_majority_class_is_the_least_to_beat(accuracy: float, warned: bool) -> None:
    history = [{"epoch": 1, "train_accuracy": 0.8, "val_accuracy": accuracy, "best": True}]
    assert titles({**COUNTS, "val": [15, 5]}, history) == ["The model learned nothing that helps"] * warned


def test_classes_without_test_images_and_small_test_sets() -> None:
    assert titles({**COUNTS, "test": [200, 0]}, metrics={**METRICS, "images": 99}) == [
        "One class is not tested",
        "Few test images",
    ]
