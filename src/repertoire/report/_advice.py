"""What looks wrong about a run, and what to try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repertoire.report._remedies import Remedies
from repertoire.report._text import count, percent, plural

__all__ = ["Advice", "warnings"]

IMBALANCE = 10
MISCALIBRATED = 0.1
OVERFIT = 0.15
FEW = 100


@dataclass(frozen=True)
class Advice:
    """An observation, the numbers behind it, and what to try."""

    title: str
    evidence: str
    remedy: str


def warnings(
    counts: Mapping[str, Sequence[int]],
    classes: Sequence[str],
    history: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, Any],
    remedies: Remedies,
) -> list[Advice]:
    """Warnings to know of before one trusts the result; empty when nothing is off.

    Args:
        counts: images of each class in "train", "val" and "test".
        classes: class names.
        history: one row an epoch; empty before the first ends.
        metrics: the test metrics; empty while the run is not finished.
        remedies: what the run leaves open to try.
    """
    found = [
        _majority(counts.get("val", ()), history, remedies),
        _imbalance(counts.get("train", ()), classes, remedies),
        _untested(counts.get("test", ()), classes),
        _overfit(history, remedies),
        _miscalibrated(metrics, remedies),
        _few(metrics),
    ]
    return [advice for advice in found if advice is not None]


def best_row(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The epoch whose weights were kept; the last one where none is marked."""
    kept = [row for row in history if row.get("best")]
    return kept[-1] if kept else history[-1] if history else None


def _majority(counts: Sequence[int], history: Sequence[Mapping[str, Any]], remedies: Remedies) -> Advice | None:
    row = best_row(history)
    if row is None or row.get("val_accuracy") is None or not sum(counts):
        return None
    baseline = max(counts) / sum(counts)
    if row["val_accuracy"] > baseline + 1e-9:
        return None
    return Advice(
        "The model learned nothing that helps",
        f"Validation accuracy is {percent(row['val_accuracy'])}; always answering with the commonest class gives "
        f"{percent(baseline)}.",
        remedies.offer("longer", "rate", otherwise="Look at the data first.")
        + " Check that the images are in the right classes.",
    )


def _imbalance(counts: Sequence[int], classes: Sequence[str], remedies: Remedies) -> Advice | None:
    if not counts or max(counts) <= IMBALANCE * min(counts):
        return None
    rare, common = min(range(len(counts)), key=counts.__getitem__), max(range(len(counts)), key=counts.__getitem__)
    return Advice(
        "The classes are very uneven",
        f"{classes[common]} has {plural(counts[common], 'training image')}, {classes[rare]} has {count(counts[rare])}: "
        "accuracy mostly says how well the common classes do.",
        remedies.offer(
            "balanced", "class-weights", "logit-adjusted", otherwise="The run makes up for it in training already."
        )
        + " Judge by balanced accuracy.",
    )


def _untested(counts: Sequence[int], classes: Sequence[str]) -> Advice | None:
    missing = [name for name, images in zip(classes, counts, strict=False) if not images]
    if not missing:
        return None
    named = ", ".join(missing[:5]) + (f" and {count(len(missing) - 5)} more" if len(missing) > 5 else "")
    return Advice(
        "Some classes are not tested" if len(missing) > 1 else "One class is not tested",
        f"There is no test image of {named}, so nothing is known about it."
        if len(missing) == 1
        else f"There are no test images of {named}, so nothing is known about them.",
        "Add test images, or hold out a larger share (--test 0.3).",
    )


def _overfit(history: Sequence[Mapping[str, Any]], remedies: Remedies) -> Advice | None:
    row = best_row(history)
    if row is None or row.get("train_accuracy") is None or row.get("val_accuracy") is None:
        return None
    gap = row["train_accuracy"] - row["val_accuracy"]
    if gap <= OVERFIT + 1e-9:
        return None
    return Advice(
        "The model remembers more than it understands",
        f"{percent(row['train_accuracy'])} of the training images are right, but {percent(row['val_accuracy'])} of the "
        "validation images.",
        "More images help most. " + remedies.offer("stronger", "head", "decay", "narrower", "sam", otherwise=""),
    )


def _miscalibrated(metrics: Mapping[str, Any], remedies: Remedies) -> Advice | None:
    if metrics.get("ece") is None or metrics["ece"] <= MISCALIBRATED:
        return None
    bins = metrics.get("reliability", ())
    excess = sum(b["count"] * (b["confidence"] - b["accuracy"]) for b in bins)
    surer = "more sure" if excess > 0 else "less sure"
    return Advice(
        "The stated probabilities are off",
        f"The expected calibration error is {metrics['ece']:.3f}; the model is {surer} than it should be.",
        remedies.offer("smoothing", "shorter", "decay", otherwise="Read them as an order and not as chances.")
        if excess > 0
        else remedies.offer("longer", "no smoothing", "weaker", otherwise="Read them as an order and not as chances."),
    )


def _few(metrics: Mapping[str, Any]) -> Advice | None:
    images = metrics.get("images")
    if not images or images >= FEW:
        return None
    low, high = metrics["accuracy_interval"]
    return Advice(
        "Few test images",
        f"{plural(images, 'test image')}: the accuracy may be anything from {percent(low, 0)} to {percent(high, 0)}.",
        "Test on more images before comparing this run with another.",
    )
