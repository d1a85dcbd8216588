"""The claim of *A Simple Framework for Contrastive Learning of Visual Representations* (2020)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import new_method, probe, probe_accuracy, resolved, train
from repertoire.claims.beds.shapes import SHAPES, drawn_shapes, options_of


@claim(
    "simclr",
    statement=(
        "A linear probe of features learned without labels from two augmented views is more accurate than one of raw "
        "pixels or of the same network with random weights, whichever of the two is better."
    ),
    metric="linear-probe test accuracy",
    method="NT-Xent on two views, no labels",
    baseline="raw pixels or random weights, the better",
    data=SHAPES,
    threshold=0.0,
)
def simclr(budget: Budget, seed: int) -> Measured:
    """Chen et al., *A Simple Framework for Contrastive Learning of Visual Representations* (2020)."""
    splits = drawn_shapes(budget, seed)
    options = {"loss": "nt-xent", "epochs": budget.pick(smoke=1, small=30, full=200), **options_of(budget, seed)}
    untrained = new_method(splits, resolved(splits, **options)).eval()
    random = probe_accuracy(untrained, splits)
    pixels = [part.pixels(slice(None)).reshape(len(part), -1) / 255 for part in (splits.train, splits.test)]
    raw = probe(pixels[0], splits.train.labels, pixels[1], splits.test.labels)
    learned = probe_accuracy(train(splits, **options), splits)
    return Measured(learned, max(raw, random), {"raw pixels": raw, "random weights": random})
