"""The claim of *Understanding Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere*
(2020).
"""

from __future__ import annotations

import torch

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import embeddings, probe_accuracy, train
from repertoire.claims.beds.shapes import SHAPES, drawn_shapes, options_of
from repertoire.diagnostics import alignment, uniformity


@claim(
    "align-uniform",
    statement=(
        "Minimising alignment plus uniformity directly gives features whose linear probe is no more than one "
        "percentage point below that of features trained with NT-Xent for equally long."
    ),
    metric="linear-probe test accuracy",
    method="alignment and uniformity",
    baseline="NT-Xent",
    data=SHAPES,
    threshold=-0.01,
)
def align_uniform(budget: Budget, seed: int) -> Measured:
    """Wang and Isola, *Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere* (2020): the two losses summed against the contrastive loss."""
    splits = drawn_shapes(budget, seed)
    epochs = budget.pick(smoke=1, small=25, full=200)
    measured, extra = {}, {}
    for loss in ("align-uniform", "nt-xent"):
        method = train(splits, loss=loss, epochs=epochs, **options_of(budget, seed))
        measured[loss] = probe_accuracy(method, splits)
        features = torch.from_numpy(embeddings(method, splits.test))
        extra[f"{loss}: alignment within a class"] = alignment(features, torch.from_numpy(splits.test.labels))
        extra[f"{loss}: uniformity"] = uniformity(features)
    return Measured(measured["align-uniform"], measured["nt-xent"], extra)
