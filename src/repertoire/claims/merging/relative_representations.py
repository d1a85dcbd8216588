"""The claim of *Relative representations enable zero-shot latent space communication* (2022)."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import Classifier, epochs_for, fitted, photographs
from repertoire.claims.beds.raw import raw_accuracy_of_rows
from repertoire.diagnostics import stitching

EACH = 400


def untouched(budget: Budget, seed: int) -> float:
    """What the features that both networks learn from give without either."""
    return raw_accuracy_of_rows(photographs(budget, seed, EACH))


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
    learned=0.01,
    learned_by="best",
    floor=untouched,
    guard="nearest means and neighbours of what both networks learn from; that the rival fails is the claim",
)
def relative(budget: Budget, seed: int) -> Measured:
    """Moschella et al., *Relative Representations Enable Zero-Shot Latent Space Communication* (2022). `extra` has the
    accuracy within one network, of which little is to be lost. Until there were 400 photographs of each class in the
    place of 100, a network was hardly better than neighbours of the features that it is given."""
    rows = photographs(budget, seed, EACH)
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
