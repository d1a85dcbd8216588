"""The claim of *SupCL-Seq: Supervised Contrastive Learning for Downstream Optimized ...* (2021)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, probe_accuracy, train
from repertoire.claims.beds.unseen_classes import thinned_out
from repertoire.data import load


@claim(
    "supcl-seq",
    statement=(
        "With ten labelled images a class, a linear probe of features trained with the supervised contrastive loss on "
        "views made by dropout is more accurate than the same network trained with cross-entropy."
    ),
    metric="test accuracy",
    method="supervised contrastive loss on views with four dropout rates",
    baseline="cross-entropy",
    data="digits, ten labelled images a class",
    threshold=0.0,
)
def supcl_seq(budget: Budget, seed: int) -> Measured:
    """Sedghamiz et al., *SupCL-Seq* (2021), on images, which are not augmented. Cross-entropy trains for four times the
    epochs. `extra` has a probe of it, and of the contrastive loss on equal views."""
    splits = load("digits", seed=seed)
    splits = replace(splits, train=thinned_out(splits.train, seed, [10] * 10))
    epochs = budget.pick(smoke=1, small=60, full=200)
    options: dict[str, Any] = {
        "backbone": "mlp:hidden=128",
        "augment": "none",
        "batch_size": 50,
        "seed": seed,
        "device": budget.device,
    }
    loss = "supcon:temperature=0.05"
    views = train(splits, method="dropout-views", loss=loss, epochs=epochs, **options)
    equal = train(splits, method="dropout-views:rates=(0,0)", loss=loss, epochs=2 * epochs, **options)
    plain = train(splits, loss="cross-entropy", epochs=4 * epochs, **options)
    extra = {"equal views": probe_accuracy(equal, splits), "probe of cross-entropy": probe_accuracy(plain, splits)}
    return Measured(probe_accuracy(views, splits), accuracy(plain, splits.test), extra)
