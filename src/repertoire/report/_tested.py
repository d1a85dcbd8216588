"""What the model made of each test image: the telling ones as pictures, all of them on a map."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from repertoire.data import ImageSet
from repertoire.errors import RepertoireError, RunError
from repertoire.report import _map, _samples, _trust
from repertoire.report._text import label, percent, shorten
from repertoire.tasks import Outputs
from repertoire.train import Run

__all__ = ["tested"]


def tested(run: Run, classes: Sequence[str]) -> dict[str, Any]:
    """The parts of the page that look at single test images.

    Args:
        run: a finished run.
        classes: class names as they are to be shown.

    Raises:
        RunError: predictions.npz is missing, damaged, or of other classes.
    """
    result = _predictions(run)
    images, why_no_images = _test_images(run, result.labels)
    probabilities = result.probabilities
    predicted = probabilities.argmax(1)

    def describe(i: int) -> dict[str, Any]:
        return {
            "name": f"image {i}" if images is None else label(images.names[i]),
            "true": classes[result.labels[i]],
            "predicted": classes[predicted[i]],
            "confidence": float(probabilities[i, predicted[i]]),
            "truth": float(probabilities[i, result.labels[i]]),
        }

    mistakes, hits = _samples.choose(probabilities, result.labels)
    chosen = np.concatenate([mistakes, hits])
    looked = _looked(run, images, chosen, predicted[chosen])
    pictures = looked.pop("pictures")
    samples = [{**describe(i), "picture": picture} for i, picture in zip(chosen.tolist(), pictures, strict=True)]
    return {
        "mistakes": samples[: len(mistakes)],
        "hits": samples[len(mistakes) :],
        "wrong": int(((predicted != result.labels) & (result.labels >= 0)).sum()),
        "why_no_images": why_no_images,
        **looked,
        "map": _embedding_map(result, predicted, classes, describe),
    }


def _predictions(run: Run) -> Outputs:
    file = run.directory.predictions_file
    shown = f"{run.directory}/{file.name}"
    if not file.exists():
        raise RunError(f"{run.directory} is incomplete: it has no {file.name}; put it back, or train again")
    try:
        with np.load(file, allow_pickle=False) as arrays:
            result = Outputs(arrays["logits"], arrays["embeddings"], arrays["labels"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{shown} is damaged: {error}; put it back, or train again") from None
    rows, classes = len(result.labels), len(run.classes)
    fits = result.logits.shape == (rows, classes) and result.embeddings.shape[:1] == (rows,)
    if not fits or result.embeddings.ndim != 2 or result.labels.max(initial=-1) >= classes:
        raise RunError(
            f"{shown} does not fit the run, which has {classes} classes: it holds {rows} labels, logits "
            f"{list(result.logits.shape)} and embeddings {list(result.embeddings.shape)}"
        )
    return result


def _test_images(run: Run, labels: np.ndarray) -> tuple[ImageSet | None, str | None]:
    """The test images; or None, and why they cannot be shown."""
    if run.facts.modality != "images":
        return None, "The run was trained on features, which are no pictures."
    try:
        images = run.splits.test
    except RepertoireError as error:
        return None, f"The data cannot be read any more: {error}"
    if run.data_changed or not np.array_equal(images.labels, labels):
        return None, "The data is no longer what it was when the run was trained."
    return images, None


def _looked(run: Run, images: ImageSet | None, index: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """The pictures at these positions, None for each where there are none, with maps of the classes that were predicted
    there; why there are no heat maps, or not all; and how far those that are there can be trusted."""
    found: dict[str, Any] = {"why_no_maps": None, "unfit": {}, "explainers": [], "trust": None}
    if images is None:
        return {**found, "pictures": [None] * len(index)}
    try:
        model = _trust.quick(run.model, images)
        chosen, found["unfit"] = _trust.explainers(model, images)
    except RepertoireError as error:
        return {**found, "why_no_maps": str(error), "pictures": _samples.pictures(images, index)}
    if not chosen:
        reason = next(iter(found["unfit"].values()))
        return {**found, "why_no_maps": reason, "pictures": _samples.pictures(images, index)}
    found |= {"explainers": list(chosen), "trust": _trust.trust(model, images, chosen)}
    return {**found, "pictures": _samples.pictures(images, index, model, chosen, predicted)}


def _embedding_map(
    result: Outputs, predicted: np.ndarray, classes: Sequence[str], describe: Callable[[int], dict[str, Any]]
) -> dict[str, Any]:
    labelled = np.flatnonzero(result.labels >= 0)
    layout = _map.arrange(result.embeddings[labelled])
    shown = labelled[layout.index]
    labels = result.labels[shown]
    points = []
    for i in shown.tolist():
        image = describe(i)
        right = bool(predicted[i] == result.labels[i])
        verdict = image["true"] if right else f"{image['true']}, taken for {image['predicted']}"
        hint = f"{verdict} ({percent(image['confidence'], 0)} sure)\n{shorten(image['name'], 60, keep='end')}"
        points.append(_map.Point(int(result.labels[i]), right, hint))
    numbered = len(classes) > _map.MOST_NAMES
    description = f"Map of {len(points)} test images by their embeddings ({layout.method})."
    return {
        "figure": _map.scatter(layout.positions, points, classes, description=description),
        "method": layout.method,
        "shown": len(points),
        "total": len(labelled),
        "agreement": float((labels[layout.neighbours] == labels).mean()) if len(layout.neighbours) else None,
        "legend": [
            {"class": k, "marker": _map.marker(k), "number": k + 1 if numbered else None, "name": classes[k]}
            for k in np.unique(labels).tolist()
        ],
    }
