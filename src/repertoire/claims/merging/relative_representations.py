"""The claim of *Relative representations enable zero-shot latent space communication* (2022)."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import Classifier, epochs_for, fitted, photographs
from repertoire.diagnostics import stitching


@claim(
    "relative-representations",
    statement=(
        "A classifier of one network's relative representations is more accurate, by 0.3, on those of a network "
        "trained from another seed than a classifier of the representations as they are."
    ),
    metric="test accuracy of a classifier of the first network on the second",
    method="relative to 100 anchors",
    baseline="features as they are",
    bed="cifar10-lite0",
    threshold=0.3,
)
def relative(budget: Budget, seed: int) -> Measured:
    """Moschella et al., *Relative Representations Enable Zero-Shot Latent Space Communication* (2022). `extra` has the
    accuracy within one network, of which little is to be lost."""
    rows = photographs(budget, seed, 100)
    bodies = []
    for number in range(2):
        torch.manual_seed(2 * seed + number)
        network = Classifier(rows.x.shape[1], "linear", int(rows.y.max()) + 1)
        fitted(rows, F.cross_entropy, network, epochs=epochs_for(budget, len(rows.x)), rate=1e-3)
        bodies.append(network.body)
    with torch.no_grad():
        first, second = (tuple(part(x).cpu() for part in bodies) for x in (rows.x, rows.test_x))
    found = stitching(
        (first[0], first[1]), rows.y.cpu(), (second[0], second[1]), rows.test_y.cpu(), anchors=100, seed=seed
    )
    assert found.absolute is not None
    return Measured(found.relative, found.absolute, {"within one network": found.own, "chance": found.chance})
