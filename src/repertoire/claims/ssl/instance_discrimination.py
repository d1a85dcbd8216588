"""The claim of *Unsupervised Feature Learning via Non-Parametric Instance-level Discrimination* (2018)."""

from __future__ import annotations

import numpy as np

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.disturbed_images import (
    DATA,
    DisturbedImages,
    disturbed_images,
    embedded,
    new_method,
    pretrained,
)
from repertoire.tasks import Outputs
from repertoire.train import probe_outputs


def _neighbours(seen: np.ndarray, unseen: np.ndarray, data: DisturbedImages) -> float:
    """Test accuracy of the weighted vote of nearest neighbours."""
    parts = [
        Outputs(np.zeros((len(rows), 10), np.float32), rows.astype(np.float32), labels.numpy())
        for rows, labels in ((seen, data.labels), (unseen, data.test_labels))
    ]
    found, _ = probe_outputs("knn", parts[0], parts[1], 10)
    return float((found.logits.argmax(1) == found.labels).mean())


@claim(
    "instance-discrimination",
    statement=(
        "The weighted vote of nearest neighbours is more accurate by features learned with a memory bank, without "
        "labels, than by pixels or by random weights, whichever of the two is better."
    ),
    metric="test accuracy of the weighted vote of 20 neighbours",
    method="instance discrimination, noise-contrastive estimation",
    baseline="pixels or random weights, the better",
    data=DATA,
    threshold=0.0,
)
def instance_discrimination(budget: Budget, seed: int) -> Measured:
    """Wu et al., *Unsupervised Feature Learning via Non-Parametric Instance Discrimination* (2018)."""
    data = disturbed_images(budget, seed)
    epochs = budget.pick(smoke=1, small=20, full=200)
    spec = "instance-discrimination:negatives=512"
    learned = _neighbours(*embedded(pretrained(spec, data, epochs=epochs, seed=seed), data), data)
    exact = pretrained("instance-discrimination:negatives=none", data, epochs=epochs, seed=seed)
    random = _neighbours(*embedded(new_method(spec, seed, len(data.images)).eval(), data), data)
    raw = _neighbours(data.images.flatten(1).numpy(), data.test_images.flatten(1).numpy(), data)
    extra = {"pixels": raw, "random weights": random, "whole softmax": _neighbours(*embedded(exact, data), data)}
    return Measured(learned, max(raw, random), extra)
