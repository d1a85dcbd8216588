"""How much of the classes is in frozen features: nearest neighbours, or a linear classifier."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import torch

from repertoire.errors import RunError
from repertoire.ops import pair_topk
from repertoire.tasks import Outputs

__all__ = ["PROBES", "Probe", "probe_outputs"]

Probe = Literal["knn", "linear"]
PROBES: tuple[str, ...] = get_args(Probe)

FLOOR = 1e-6
"""The smallest probability of a class: no neighbour of a class is no proof that an image is not of it."""


def probe_outputs(
    kind: Probe, train: Outputs, test: Outputs, classes: int, *, neighbours: int = 20, temperature: float = 0.07
) -> tuple[Outputs, dict[str, Any]]:
    r"""Outputs of a classifier on frozen features for the test images, and what there is to know of it.

    - `knn`: the k training images with the largest cosine vote with weight :math:`\exp(s / \tau)`, as in Wu et al.,
      *Unsupervised Feature Learning via Non-Parametric Instance Discrimination* (2018). Neighbours are searched tile by
      tile: memory does not grow with the product of training and test images.
    - `linear`: logistic regression (scikit-learn's, C = 1, at most 1000 iterations) on features that are standardised
      by the training images.

    Args:
        kind: "knn" or "linear".
        train, test: embeddings and labels; training images without a label (-1) do not count.
        classes: K.
        neighbours: k of `knn`; all of the training images if there are fewer.
        temperature: tau of `knn`, positive.

    Raises:
        RunError: fewer than two classes have labelled training images.
    """
    known = train.labels >= 0
    seen, labels = train.embeddings[known], train.labels[known]
    present = np.unique(labels)
    if len(present) < 2:
        raise RunError(
            f"a probe is fitted to training images of two classes or more, and the labelled ones here have "
            f"{len(present)}; label more of them"
        )
    about: dict[str, Any] = {"kind": kind, "trained_on": len(labels)}
    if kind == "knn":
        count = min(neighbours, len(labels))
        shares = _votes(seen, labels, test.embeddings, classes, count, temperature)
        about |= {"neighbours": count, "temperature": temperature}
    else:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(seen, labels)
        shares = np.zeros((len(test.labels), classes))
        shares[:, present] = model.predict_proba(test.embeddings)
    logits = np.log(np.maximum(shares, FLOOR)).astype(np.float32)
    return Outputs(logits, test.embeddings, test.labels), about


def _votes(
    seen: np.ndarray, labels: np.ndarray, queries: np.ndarray, classes: int, neighbours: int, temperature: float
) -> np.ndarray:
    """Share of the votes for each class, float64 `[N, K]`."""
    found = pair_topk(torch.from_numpy(queries), torch.from_numpy(seen), neighbours, similarity="cosine")
    # Relative to the largest cosine there is, so that no weight overflows.
    weights = ((found.values.double() - 1) / temperature).exp()
    votes = torch.zeros(len(queries), classes, dtype=torch.float64)
    votes.scatter_add_(1, torch.from_numpy(labels).long()[found.indices], weights)
    return (votes / votes.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)).numpy()
