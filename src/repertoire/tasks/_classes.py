"""One class a sample."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.special import log_softmax, ndtri

from repertoire.tasks._base import Best, Outputs, Task

__all__ = ["Classes", "calibration", "exit_table", "score", "wilson"]


class Classes(Task):
    """One class a sample.

    Example:
        >>> import numpy as np
        >>> from repertoire.tasks import Classes, Outputs
        >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=np.float32)
        >>> Classes(("cat", "dog")).score(Outputs(logits, logits, np.array([0, 1, 1])))["accuracy"]
        0.6666666666666666
    """

    kind = "classes"
    loss = "cross-entropy"
    best = Best("accuracy", True, "nll", "accuracy")
    headline = MappingProxyType({"accuracy": "{:.1%}"})

    def score(self, outputs: Outputs) -> dict[str, Any]:
        """See `repertoire.tasks.score`."""
        return score(outputs, self.names)


CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Where the curve of early exit is drawn."""


def exit_table(
    probabilities: np.ndarray, labels: np.ndarray, names: Sequence[str], work: Sequence[float]
) -> dict[str, Any]:
    """Accuracy of each exit, and of leaving by the first that is sure enough.

    Args:
        probabilities: of every exit, `[E, N, K]`; images without a label (-1) do not count.
        labels: int64 `[N]`.
        names: of the last unit before each exit.
        work: of an image that leaves by each exit, relative to the whole network.
    """
    known = labels >= 0
    probabilities, labels = probabilities[:, known], labels[known]
    right = probabilities.argmax(2) == labels
    sure = probabilities.max(2)
    rows = [
        {"block": i + 1, "last_unit": name, "accuracy": float(right[i].mean()), "work": float(work[i])}
        for i, name in enumerate(names)
    ]
    curve = []
    for confidence in CONFIDENCES:
        leaves = sure >= confidence
        leaves[-1] = True
        first = leaves.argmax(0)
        shares = np.bincount(first, minlength=len(names)) / max(1, len(first))
        accuracy = float(right[first, np.arange(len(first))].mean())
        curve.append(
            {
                "confidence": confidence,
                "accuracy": accuracy,
                "work": float(shares @ np.asarray(work)),
                "shares": shares.tolist(),
            }
        )
    return {"exits": rows, "early_exit": curve}


def wilson(successes: float, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion.

    >>> [round(float(x), 3) for x in wilson(9, 10)]
    [0.596, 0.982]
    """
    if trials == 0:
        return 0.0, 1.0
    z = float(ndtri(0.5 + confidence / 2))
    share = successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def calibration(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> dict[str, Any]:
    r"""Reliability of the stated confidence, and the expected calibration error.

    .. math:: \mathrm{ECE} = \sum_b \frac{n_b}{N}\,|\mathrm{acc}_b - \mathrm{conf}_b|

    Bins are of equal width over (0, 1], as in Guo et al., *On Calibration of Modern Neural Networks* (2017).
    """
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == labels
    # By the edges themselves: a product that is an edge in arithmetic may lie above it in floating point.
    which = np.minimum(np.searchsorted(np.arange(1, bins + 1) / bins, confidence), bins - 1)
    count = np.bincount(which, minlength=bins)
    filled = np.maximum(count, 1)
    mean_confidence = np.bincount(which, confidence, bins) / filled
    accuracy = np.bincount(which, correct, bins) / filled
    ece = float((count / max(1, len(labels)) * np.abs(accuracy - mean_confidence)).sum())
    return {
        "ece": ece,
        "bins": [
            {"count": int(n), "confidence": float(c), "accuracy": float(a)}
            for n, c, a in zip(count, mean_confidence, accuracy, strict=True)
        ],
    }


def score(result: Outputs, classes: tuple[str, ...]) -> dict[str, Any]:
    """All metrics of a classifier on the labelled images of a set; plain numbers and lists, ready for JSON.

    Keys: `images`, `accuracy` and its 95 % `accuracy_interval`, `balanced_accuracy` (mean over the classes present),
    `macro_f1` (mean over the classes that are present or predicted), `top5_accuracy` (where there are more than five
    classes), `nll` (natural logarithm), `ece` and the `reliability` bins behind it, `per_class`, and
    `confusion[true][predicted]`.
    """
    labelled = result.labels >= 0
    labels, logits = result.labels[labelled], result.logits[labelled].astype(np.float64)
    if len(labels) == 0:
        return {"images": 0}
    count = len(classes)
    predicted = logits.argmax(1)
    confusion = np.bincount(labels * count + predicted, minlength=count * count).reshape(count, count)
    support, hits, guesses = confusion.sum(1), confusion.diagonal(), confusion.sum(0)
    log_probabilities = log_softmax(logits, axis=1)
    reliability = calibration(np.exp(log_probabilities), labels)
    present, seen = support > 0, support + guesses > 0
    top5 = {}
    if count > 5:
        own = logits[np.arange(len(labels)), labels]
        top5 = {"top5_accuracy": float(((logits > own[:, None]).sum(1) < 5).mean())}
    per_class = []
    for k, name in enumerate(classes):
        low, high = wilson(hits[k], int(support[k]))
        per_class.append(
            {
                "class": name,
                "images": int(support[k]),
                "accuracy": float(hits[k] / support[k]) if support[k] else None,
                "interval": [low, high],
                "precision": float(hits[k] / guesses[k]) if guesses[k] else None,
            }
        )
    return {
        "images": len(labels),
        "accuracy": float(hits.sum() / len(labels)),
        "accuracy_interval": list(wilson(float(hits.sum()), len(labels))),
        "balanced_accuracy": float((hits[present] / support[present]).mean()),
        "macro_f1": float((2 * hits[seen] / (support + guesses)[seen]).mean()),
        **top5,
        "nll": float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        "ece": reliability["ece"],
        "reliability": reliability["bins"],
        "per_class": per_class,
        "confusion": confusion.tolist(),
    }
