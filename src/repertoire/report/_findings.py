"""What the diagnosis of a run comes to: what looks wrong, on what evidence, and what to try."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repertoire.report._advice import Advice
from repertoire.report._remedies import Remedies
from repertoire.report._text import count, number, percent, plural

__all__ = ["findings"]

COLLAPSED = 0.1
"""Effective rank over min(width, samples), below which dimensions are wasted."""

OVERLAP = 0.15
"""Share of a class's neighbours in another class, from which the two are named."""

NOISY = 0.02
"""Share of doubtful labels from which it is worth looking through them."""

TRUSTED = 0.7
"""Share of the labels that a prediction must agree with before it may doubt the others."""

DEAD = 0.2
"""Share of units that never fire from which a layer is named."""

REDUNDANT = 0.7
"""Share of distinct channels below which a layer is wider than it needs to be."""

PROBE_GAIN = 0.02
"""Accuracy that a probe has over the classifier from which the classifier is to blame."""


def findings(numbers: Mapping[str, Any], remedies: Remedies) -> list[Advice]:
    """Findings to look at, worst first; empty where nothing is off.

    Args:
        numbers: of `repertoire.report._measure.Measurements`.
        remedies: what the run leaves open to try.
    """
    found = [
        _copies(numbers),
        _labels(numbers, remedies),
        _subgroups(numbers),
        _rank(numbers, remedies),
        _constant(numbers, remedies),
        _head(numbers, remedies),
        _overlap(numbers, remedies),
        _collapse(numbers, remedies),
        _dead(numbers, remedies),
        _redundant(numbers),
        _few(numbers),
    ]
    return [advice for advice in found if advice is not None]


def _copies(numbers: Mapping[str, Any]) -> Advice | None:
    copies = len(numbers["data"]["copies"])
    if not copies:
        return None
    share = copies / numbers["test_images"]
    return Advice(
        "Test images have near copies among the training images",
        f"{plural(copies, 'test image')} ({percent(share)}) {'is' if copies == 1 else 'are'} nearly the same picture "
        "as a training image, so the test accuracy is too good.",
        "Take them out of one of the two sets, and split by scene or by person where pictures come in series.",
    )


def _labels(numbers: Mapping[str, Any], remedies: Remedies) -> Advice | None:
    parts = [
        (name, numbers["data"][key])
        for name, key in (("training", "train"), ("test", "test"))
        if numbers["data"][key]["surely_wrong"] > NOISY * numbers["data"][key]["images"]
        and numbers["data"][key]["agreement"] >= TRUSTED
    ]
    if not parts:
        return None
    told = " and ".join(
        f"{plural(part['surely_wrong'], name + ' image')} of {count(part['images'])}" for name, part in parts
    )
    return Advice(
        "Some labels are probably wrong",
        f"The labels of {told} disagree with a prediction that is surer than that class usually is.",
        "Look at the most doubtful ones below and correct those that are wrong; a test set matters first. "
        + remedies.offer("smoothing", "trusting less", otherwise=""),
    )


def _subgroups(numbers: Mapping[str, Any]) -> Advice | None:
    weak = numbers["data"]["weak_subgroups"]
    if not weak:
        return None
    worst = weak[0]
    return Advice(
        "The model falls behind on a group of look-alikes"
        if len(weak) == 1
        else "The model falls behind on some groups",
        f"{plural(worst['errors'], 'error')} in a group of {plural(worst['images'], 'similar test image')} "
        f"({percent(worst['error'], 0)}), against {percent(1 - numbers['accuracy'], 0)} overall.",
        "Open the group on the map to see what its images share, and add training images of that kind.",
    )


def _rank(numbers: Mapping[str, Any], remedies: Remedies) -> Advice | None:
    geometry = numbers["geometry"]
    most = min(geometry["width"], geometry["samples"] - 1)
    if most < 8 or geometry["effective_rank"] >= COLLAPSED * most:
        return None
    return Advice(
        "The features use few of their dimensions",
        f"The effective rank is {number(geometry['effective_rank'])} of {most}.",
        "For a classifier of few classes this is usual, and a narrower network would do. For features that are to be "
        "used elsewhere: " + remedies.offer("supcon", "uncorrelated", otherwise="another network to start from."),
    )


def _constant(numbers: Mapping[str, Any], remedies: Remedies) -> Advice | None:
    constant = len(numbers["geometry"]["constant_features"])
    if not constant:
        return None
    return Advice(
        "Some features never change",
        f"{plural(constant, 'feature')} of {numbers['geometry']['width']} {'has' if constant == 1 else 'have'} the "
        "same value for every test image.",
        "These units are dead. " + remedies.offer("slower", "warmup", "narrower", otherwise=""),
    )


def _head(numbers: Mapping[str, Any], remedies: Remedies) -> Advice | None:
    probes = {
        "neighbours": numbers["separability"]["knn_accuracy"],
        "a linear probe": numbers["separability"]["linear_probe_accuracy"],
    }
    best = max((name for name in probes if probes[name] is not None), key=lambda name: probes[name] or 0, default=None)
    if best is None or (probes[best] or 0) < numbers["accuracy"] + PROBE_GAIN:
        return None
    return Advice(
        "The features know more than the classifier",
        f"By {best} of the frozen features {percent(probes[best])} of the test images are right, by the run's own "
        f"classifier {percent(numbers['accuracy'])}.",
        remedies.offer("anew", "logit-adjusted", otherwise="Use the features with nearest neighbours."),
    )


def _overlap(numbers: Mapping[str, Any], remedies: Remedies) -> Advice | None:
    pairs = [pair for pair in numbers["separability"]["overlapping_classes"] if pair["share"] >= OVERLAP]
    if not pairs:
        return None
    named = ", ".join(f"{' and '.join(pair['classes'])} ({percent(pair['share'], 0)})" for pair in pairs[:3])
    return Advice(
        "Some classes run into each other",
        f"Among the nearest neighbours of {named} so many are of the other class.",
        "Check whether a person can tell them apart. If not, make them one class; if so, add images of both. "
        + remedies.offer("supcon", otherwise=""),
    )


def _collapse(numbers: Mapping[str, Any], remedies: Remedies) -> Advice | None:
    train, test = (numbers["geometry"][f"neural_collapse_{name}"]["variability"] for name in ("train", "test"))
    if train is None or test is None or not (train < 1 and test > 10 * train):
        return None
    return Advice(
        "Training images have collapsed to their classes, test images have not",
        f"The variability within classes (NC1) is {number(train)} for training images and {number(test)} for test "
        "images.",
        "The network has learnt its training images by heart: more images help. "
        + remedies.offer("stronger", "head", "decay", otherwise=""),
    )


def _dead(numbers: Mapping[str, Any], remedies: Remedies) -> Advice | None:
    worst = max(numbers["network"]["sparsity"], key=lambda row: row["dead"], default=None)
    if worst is None or worst["dead"] < DEAD:
        return None
    return Advice(
        "Many units never fire",
        f"In {worst['layer']}, {percent(worst['dead'], 0)} of {plural(worst['units'], 'unit')} are silent for every "
        "image looked at.",
        remedies.offer("slower", "warmup", otherwise="") + " If accuracy is fine, a narrower network does the same.",
    )


def _redundant(numbers: Mapping[str, Any]) -> Advice | None:
    rows = numbers["network"]["complexity"]
    wide = [row for row in rows if row["distinct"] < REDUNDANT * row["channels"]]
    if not wide:
        return None
    worst = min(wide, key=lambda row: row["distinct"] / row["channels"])
    return Advice(
        "Some layers hold the same feature many times",
        f"{worst['layer']} has {worst['distinct']} distinct channels among {worst['channels']}.",
        "A narrower network would do; repertoire.diagnostics.merge_features makes such channels one, without data.",
    )


def _few(numbers: Mapping[str, Any]) -> Advice | None:
    if not numbers["geometry"]["limited_by_samples"]:
        return None
    return Advice(
        "Fewer test images than features",
        f"{count(numbers['geometry']['samples'])} images cannot show what {numbers['geometry']['width']} features do.",
        "Read rank and spectrum as lower bounds, or test on more images.",
    )
